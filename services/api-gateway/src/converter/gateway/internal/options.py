"""What a form may offer, from the tables with which the intake checks what comes back."""

from __future__ import annotations

from typing import Any

from litestar import Response, get
from litestar.enums import MediaType

from converter.contracts.job import Options
from converter.contracts.quantization import KEYWORDS, Between, ByNode, Keyword, OneOf, conflicts_with_platform
from converter.gateway.gateway import Gateway
from converter.gateway.http.answers import json_answer
from converter.gateway.intake.form import FIELDS_MAX, IntakeLimits
from converter.gateway.intake.options import PLATFORMS, REPEATABLE, REQUIRED, USER_FIELD, VENDOR_MODEL_ID_MAX
from converter.gateway.openapi.documentation import Answer, Operation
from converter.gateway.openapi.job_form import JOB_FORM
from converter.gateway.representation import options_resource

_OPTIONS = Operation(answers={200: Answer("Platforms, fields, quantisation keywords by platform, limits.", {})})


@get("/options", opt={"requires": None, "operation": _OPTIONS}, media_type=MediaType.JSON)
async def get_options(gateway: Gateway) -> Response[bytes]:
    """What can be asked of a job."""
    return json_answer(
        {
            "platforms": PLATFORMS,
            "fields": _fields(),
            "quantization": {platform: _quantization(platform) for platform in PLATFORMS},
            "limits": _limits(gateway.limits),
        }
    )


def _fields() -> dict[str, Any]:
    """Each field's JSON schema, and what stands for it when it is left out."""
    resolved = options_resource(Options())
    return {
        name: {
            **schema,
            "required": name in REQUIRED,
            "repeatable": name in REPEATABLE,
            "default": [] if name in REPEATABLE else getattr(resolved, name, None),
        }
        for name, schema in JOB_FORM["properties"].items()
        if name != USER_FIELD
    }


def _quantization(platform: str) -> dict[str, Any]:
    return {
        name: described
        for name, keyword in KEYWORDS.items()
        if (described := _keyword(name, keyword, platform)) is not None
    }


def _keyword(name: str, keyword: Keyword, platform: str) -> dict[str, Any] | None:
    """What the platform allows of a keyword; none when it allows nothing."""
    match keyword.allowed:
        case OneOf(choices):
            allowed = [choice for choice in choices if not list(conflicts_with_platform({name: choice}, platform))]
            return {"allowed": allowed} if allowed else None
        case Between(least, most):
            return {"minimum": least, "maximum": most}
        case ByNode():
            return None if list(conflicts_with_platform({name: {}}, platform)) else {"by_node": True}


def _limits(limits: IntakeLimits) -> dict[str, int]:
    return {
        "model_max_bytes": limits.model_max_bytes,
        "ref_image_max_bytes": limits.image_max_bytes,
        "ref_images_max_count": limits.images_max_count,
        "body_max_bytes": limits.body_max_bytes,
        "fields_max_count": FIELDS_MAX,
        "vendor_model_id_max": VENDOR_MODEL_ID_MAX,
    }
