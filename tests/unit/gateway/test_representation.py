from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from converter.contracts.failures import job_error
from converter.contracts.job import (
    Artifact,
    JobRecord,
    JobRequest,
    JobStatus,
    Model,
    Options,
    Preprocess,
    Promotion,
    ReferenceSet,
    Stage,
    StageState,
    StoredObject,
    Toolchain,
)
from converter.gateway.http.answers import etag, not_modified
from converter.gateway.representation import job_resource, progress

AT = "2026-05-04T03:02:01.000Z"
SHA = "ab" * 32
OBJECT = StoredObject(object_key="jobs/1/secret", size_bytes=7, sha256=SHA)
ARTIFACT = Artifact(
    object_key="jobs/1/onnx/1/secret", size_bytes=7, sha256=SHA, filename="m.onnx", media_type="x/y", created_at=AT
)
QUEUED = JobRecord(
    job_id="0199c1f2-0000-7000-8000-000000000001",
    revision=1,
    request=JobRequest(
        client_id="visiona",
        user_id="alice",
        platform="720",
        model_id=32769,
        version="0001",
        model=Model(object_key="jobs/1/input/secret", size_bytes=9, sha256=SHA, filename="yolo.onnx"),
        ref_images=ReferenceSet(object_key="jobs/1/input/secret.zip", size_bytes=8, sha256=SHA, count=3),
        options=Options(preprocess=Preprocess(mean=(1.0,), scale=(2.0,)), input_shape={"x": (1, 3)}),
        request_id="secret-request",
    ),
    status=JobStatus.QUEUED,
    stage=Stage.ONNX,
    stages={
        Stage.ONNX: StageState(queued_at=AT),
        Stage.BIE: StageState(),
        Stage.NEF: StageState(),
    },
    created_at=AT,
    updated_at=AT,
    expires_at="2026-05-11T03:02:01.000Z",
)
SECOND_STAGE = replace(
    QUEUED,
    status=JobStatus.RUNNING,
    stage=Stage.BIE,
    stages={
        Stage.ONNX: StageState(
            queued_at=AT,
            started_at="2026-05-04T03:02:02.500Z",
            completed_at="2026-05-04T03:02:03.734Z",
            attempt=2,
            charged=2,
            artifact=ARTIFACT,
            report=OBJECT,
            log=OBJECT,
        ),
        Stage.BIE: StageState(queued_at=AT, started_at=AT, worker="secret-worker", attempt=1, charged=1),
        Stage.NEF: StageState(),
    },
    toolchain=Toolchain(name="reference", version="1"),
)


def shown(record: JobRecord, stage_progress: float | None = None) -> dict[str, Any]:
    read: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(job_resource(record, stage_progress)))
    return read


def test_a_queued_job_shows_every_field_of_the_contract():
    job = shown(QUEUED)
    assert list(job) == [
        "job_id",
        "user_id",
        "client_id",
        "status",
        "stage",
        "progress",
        "activity",
        "queue_position",
        "estimated_wait_s",
        "platform",
        "model_id",
        "version",
        "model",
        "ref_images_count",
        "options",
        "stage_timings",
        "artifacts",
        "promotions",
        "error",
        "warnings",
        "toolchain",
        "created_at",
        "updated_at",
        "completed_at",
        "expires_at",
    ]
    assert job["model"] == {"filename": "yolo.onnx", "size_bytes": 9, "sha256": SHA}
    assert (job["status"], job["stage"], job["progress"], job["ref_images_count"]) == ("queued", "onnx", 0.0, 3)
    assert (job["error"], job["toolchain"], job["completed_at"], job["promotions"]) == (None, None, None, [])


def test_options_are_shown_under_the_names_of_their_fields():
    assert shown(QUEUED)["options"] == {
        "targets": "nef",
        "input_shape": {"x": [1, 3]},
        "preprocess": {"mean": [1.0], "scale": [2.0]},
        "quantization": {},
    }
    preset = replace(QUEUED, request=replace(QUEUED.request, options=Options()))
    assert shown(preset)["options"]["preprocess"] == "kneron"


def test_stages_that_were_reached_show_their_times():
    assert shown(SECOND_STAGE)["stage_timings"] == {
        "onnx": {
            "queued_at": AT,
            "started_at": "2026-05-04T03:02:02.500Z",
            "completed_at": "2026-05-04T03:02:03.734Z",
            "duration_ms": 1234,
            "cached": False,
        },
        "bie": {"queued_at": AT, "started_at": AT, "completed_at": None, "duration_ms": None, "cached": False},
    }


def test_artifacts_are_shown_by_stage():
    assert shown(SECOND_STAGE)["artifacts"] == {
        "onnx": {"filename": "m.onnx", "size_bytes": 7, "sha256": SHA, "created_at": AT, "provenance": None}
    }


def test_a_signed_artifact_shows_its_statement():
    onnx = SECOND_STAGE.stages[Stage.ONNX]
    assert onnx.artifact
    stated = replace(onnx.artifact, filename="m.onnx.intoto.jsonl", size_bytes=2000)
    signed = replace(SECOND_STAGE, stages=SECOND_STAGE.stages | {Stage.ONNX: replace(onnx, provenance=stated)})
    assert shown(signed)["artifacts"]["onnx"]["provenance"] == {
        "filename": "m.onnx.intoto.jsonl",
        "size_bytes": 2000,
        "sha256": SHA,
    }


@pytest.mark.parametrize("record", [QUEUED, SECOND_STAGE])
def test_nothing_internal_is_shown(record: JobRecord):
    assert "secret" not in str(shown(record))


def test_progress_is_of_the_whole_job():
    assert progress(QUEUED, None) == 0.0
    assert progress(SECOND_STAGE, None) == pytest.approx(1 / 3, abs=0.001)
    assert progress(SECOND_STAGE, 0.5) == 0.5
    assert progress(SECOND_STAGE, 7.0) == pytest.approx(2 / 3, abs=0.001)
    assert progress(replace(QUEUED, status=JobStatus.COMPLETED), None) == 1.0


def test_a_failure_is_shown_whole():
    error = job_error("quantisation_failed", "it broke", stage=Stage.BIE, node="Conv_1", op="Conv", evidence="line")
    assert shown(replace(QUEUED, status=JobStatus.FAILED, error=error))["error"] == {
        "code": "quantisation_failed",
        "message": "it broke",
        "stage": "bie",
        "fault": "toolchain",
        "retryable": False,
        "node": "Conv_1",
        "op": "Conv",
        "evidence": "line",
        "hint": error.hint,
    }


def test_promotions_show_what_became_of_them():
    failed = Promotion(
        promotion_id="p",
        source=Stage.NEF,
        target_object_key="a/b",
        status="failed",
        at=AT,
        deadline=AT,
        error_code="file_gateway_unavailable",
        error_message="no",
    )
    assert shown(replace(QUEUED, promotions=(failed,)))["promotions"] == [
        {
            "promotion_id": "p",
            "source": "nef",
            "target_object_key": "a/b",
            "status": "failed",
            "at": AT,
            "error": {"code": "file_gateway_unavailable", "message": "no"},
        }
    ]


def test_an_entity_tag_changes_exactly_when_the_bytes_do():
    assert etag(b"a") == etag(b"a") != etag(b"b")
    assert etag(b"a").startswith('"')


@pytest.mark.parametrize(
    ("header", "known"),
    [
        (None, False),
        ("", False),
        ('"x"', False),
        ('"a","b"', False),
        ('"t"', True),
        ('"a", "t"', True),
        ('W/"t"', True),
        ("*", True),
    ],
)
def test_if_none_match_compares_weakly(header: str | None, *, known: bool):
    assert not_modified(header, '"t"') == known
