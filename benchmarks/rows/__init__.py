"""The rows, in the order of the page. Each module says what it measures and has a ROW."""

from __future__ import annotations

from harness import Row

from rows import (
    calibration,
    download,
    first_stage,
    http_get,
    images,
    jail,
    model_size,
    pickup,
    pipeline,
    pipeline_power,
    queued_jobs,
    sse,
    sse_clients,
    upload,
    upload_memory,
)

ROWS: tuple[Row, ...] = (
    pipeline.ROW,
    pipeline_power.ROW,
    pickup.ROW,
    first_stage.ROW,
    sse.ROW,
    sse_clients.ROW,
    queued_jobs.ROW,
    upload.ROW,
    upload_memory.ROW,
    download.ROW,
    http_get.ROW,
    calibration.ROW,
    jail.ROW,
    images.ROW,
    model_size.ROW,
)
