"""Values that a JSON Schema cannot describe: a model, an image, JSON within text. Loaded by schemathesis."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import schemathesis
from hypothesis import strategies as st
from schemathesis import Case
from schemathesis.transport.serialization import Binary

from converter import devstack

MODEL = (Path(str(devstack.__file__)).parent / "demo_data" / "digits_cnn.onnx").read_bytes()
EXAMPLES = json.loads(Path(os.environ["SCHEMA_EXAMPLES"]).read_bytes())
"""For an operation (`GET /health`) the arguments of a case that asks for what is there."""
ANSWERS = Path(os.environ["SCHEMA_ANSWERS"])
"""Gets a line for each answer: its status, and the method and path of what was asked."""
IMAGE = b"\x89PNG\r\n\x1a\n" + bytes(64)

schemathesis.openapi.format("preprocess-json", st.sampled_from(['{"mean": [1, 2, 3], "scale": 2}', '{"scale": 128}']))
schemathesis.openapi.format("quantization-json", st.sampled_from(['{"datapath_bitwidth_mode": "int8"}', "{}"]))
schemathesis.openapi.format("sha256", st.just(hashlib.sha256(MODEL).hexdigest()))


@schemathesis.serializer("application/offset+octet-stream")
def as_it_is(ctx: schemathesis.SerializationContext, value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


@schemathesis.hook
def map_body(ctx: schemathesis.HookContext, body: object) -> object:
    """A new job has a model and images; to the schema they are any bytes, and the model may be named instead."""
    if not isinstance(body, dict) or not _creates_a_job(ctx):
        return body
    images = [IMAGE] if "ref_images" in body else []
    known = {name: value for name, value in body.items() if name != "model_upload_id"}
    return known | {"model": Binary(MODEL), "ref_images": [Binary(image) for image in images]}


@schemathesis.hook
def map_query(ctx: schemathesis.HookContext, query: dict[str, object] | None) -> dict[str, object] | None:
    """Here jobs are created in earnest, for other operations to ask about; dry runs are in the coverage phase."""
    return {} if _creates_a_job(ctx) else query


def _creates_a_job(ctx: schemathesis.HookContext) -> bool:
    return ctx.operation is not None and ctx.operation.label == "POST /api/v1/jobs"


@schemathesis.hook
def before_add_examples(ctx: schemathesis.HookContext, examples: list[Case]) -> None:
    """What is generated knows no job, upload or link by chance."""
    assert ctx.operation is not None
    if example := EXAMPLES.get(ctx.operation.label):
        examples.append(ctx.operation.Case(**example))


@schemathesis.hook
def after_call(ctx: schemathesis.HookContext, case: Case, response: schemathesis.Response) -> None:
    with ANSWERS.open("a") as answers:
        answers.write(f"{response.status_code} {case.method} {case.operation.path}\n")


@schemathesis.check
def error_code_is_documented(ctx: schemathesis.CheckContext, response: schemathesis.Response, case: Case) -> None:
    """The examples of a refusal are named for the codes that it may have."""
    described = case.operation.definition.raw["responses"].get(str(response.status_code), {})
    examples = described.get("content", {}).get("application/json", {}).get("examples")
    if examples and case.method != "HEAD":
        code = response.json()["error"]["code"]
        assert code in examples, f"{code} is not among the documented {', '.join(examples)}"
