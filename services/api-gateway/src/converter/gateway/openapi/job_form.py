"""The multipart form of a new job, as the document describes it. Its readers are `options` and `intake`."""

from __future__ import annotations

from converter.contracts.job import STAGES
from converter.gateway.intake.options import (
    INPUT_NAME_MAX_CHARS,
    INPUTS_MAX,
    MODEL_ID_MAX,
    PLATFORMS,
    PRESETS,
    RANK_MAX,
)
from converter.gateway.intake.verdict import Verdict
from converter.gateway.openapi.documentation import BINARY, Answer, Body, FilePart, Operation, Parameter, Schema
from converter.gateway.representation import JobResource

_INPUT_NAME = rf"[\s\S]{{1,{INPUT_NAME_MAX_CHARS}}}"
_DIMENSION = r" *[1-9][0-9]{0,9} *"
_DIMENSIONS = rf"{_DIMENSION}(,{_DIMENSION}){{0,{RANK_MAX - 1}}}"
FILE: Schema = {"type": "string", "format": "binary"}
_FILES = "PNG, JPEG, BMP or WebP images by content; or one .zip of them; or .npy/.npz arrays, keys naming the inputs."

JOB_FORM: Schema = {
    "title": "JobForm",
    "type": "object",
    "required": ["user_id", "platform", "model_id", "version"],
    "additionalProperties": False,
    "description": (
        "One of model, model_upload_id and model_sha256 is needed. Parts may come in any order; with the fields first, "
        "a bad one is refused before the model is sent."
    ),
    "properties": {
        "user_id": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,128}$", "description": "Whose job it is."},
        "platform": {"type": "string", "enum": list(PLATFORMS), "description": "The chip."},
        "model_id": {
            "type": "integer",
            "minimum": 1,
            "maximum": MODEL_ID_MAX,
            "description": "Names the model on the chip. Ids up to 32767 are the vendor's: a warning in the job.",
        },
        "version": {"type": "string", "pattern": "^[0-9A-Fa-f]{4}$", "description": "Four hex digits."},
        "model": {**FILE, "description": "The .onnx file; 500 MB at most by default."},
        "ref_images": {
            "type": "array",
            "maxItems": 100,
            "items": FILE,
            "description": f"{_FILES} The part may also be named `ref_images[]`.",
        },
        "input_shape": {
            "type": "array",
            "items": {"type": "string", "pattern": f"^({_INPUT_NAME}:)?{_DIMENSIONS}$"},
            "maxItems": INPUTS_MAX,
            "description": "Static shapes, `name:1,3,224,224`; the name may be left out for a single input.",
        },
        "preprocess": {
            "type": "string",
            "anyOf": [{"enum": list(PRESETS)}, {"format": "preprocess-json"}],
            "description": 'A preset, or JSON such as {"mean": [127.5], "scale": 128, "channel_order": "bgr"}.',
        },
        "quantization": {
            "type": "string",
            "format": "quantization-json",
            "description": "A JSON object of analysis keywords; what is left out is the toolchain's choice.",
        },
        "targets": {"type": "string", "enum": list(STAGES), "description": "The last stage to run; nef by default."},
        "model_sha256": {
            "type": "string",
            "format": "sha256",
            "pattern": "^[0-9a-f]{64}$",
            "description": "The model is refused when it is not this one. Alone: a model that this client sent before.",
        },
        "model_upload_id": {
            "type": "string",
            "format": "upload-id",
            "pattern": "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$",
            "description": "A finished upload, instead of the model.",
        },
    },
}

CREATE_JOB = Operation(
    body=Body(
        JOB_FORM,
        "multipart/form-data",
        files={"model": FilePart("model.onnx", BINARY), "ref_images": FilePart("image.png", BINARY)},
    ),
    parameters=(
        Parameter("dry_run", {"type": "boolean", "default": False}, "Only look at the model; keep nothing."),
        Parameter(
            "Idempotency-Key",
            {"type": "string", "pattern": r"^[\x21-\x7e]{1,255}$"},
            "A repeat within a day answers the first job.",
            "header",
        ),
        Parameter("Content-Digest", {"type": "string", "format": "digest"}, "Of the whole body (RFC 9530).", "header"),
    ),
    answers={
        200: Answer("What would become of it; for a dry run.", Verdict),
        201: Answer("The job, queued.", JobResource, headers=("Location", "Idempotency-Replayed")),
    },
    refusals=(
        "invalid_multipart",
        "digest_mismatch",
        "user_has_active_job",
        "job_not_found",  # of an Idempotency-Key
        "idempotency_in_progress",
        "idempotency_mismatch",
        "storage_unavailable",
        "storage_full",
        "event_bus_full",
        "service_busy",
    ),
)
