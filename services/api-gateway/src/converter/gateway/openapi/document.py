"""The OpenAPI 3.1 document of the public API, made from the handlers: `python -m converter.gateway.openapi.document`.

The framework's own generator would know little more than the paths, since handlers read requests and write answers
themselves; what they say of themselves (`documentation`) and msgspec's schemas of the resources say the rest.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any

import msgspec
from litestar.handlers import HTTPRouteHandler
from msgspec import Struct

from converter.gateway.http.errors import ERRORS, FieldError, Refusal, envelope
from converter.gateway.openapi.documentation import (
    HEADERS,
    OF_COUNTED_ANSWERS,
    OF_EVERY_ANSWER,
    PATH_PARAMETERS,
    Answer,
    Body,
    FilePart,
    Operation,
    Parameter,
    Schema,
)
from converter.gateway.representation import JobPage, JobResource

SCHEMAS = "#/components/schemas/"
EVERY_REQUEST = ("validation_error", "headers_too_large", "internal_error")
WITH_TOKEN = (
    "invalid_token",
    "token_expired",
    "insufficient_scope",
    "tenant_mismatch",
    "rate_limit_exceeded",
    "misconfiguration",
    "auth_service_unavailable",
    "event_bus_unavailable",
)
WITH_PATH_PARAMETER = ("not_found",)
WITH_JOB = ("job_not_found",)
WITH_BODY = ("request_timeout", "unsupported_media_type", "file_too_large")
JOB_IDS = ((JobResource, "$response.body#/job_id"), (JobPage, "$response.body#/items/0/job_id"))
"""Where an answer names a job that other operations can be asked about."""
EXAMPLE_ID = "0199c1f2-6a00-7000-8000-000000000001"

DESCRIPTION = """\
Turns ONNX models into artifacts for Kneron NPUs: ONNX, then BIE, then NEF.

Every error has the same envelope; its `code` is for programs. A path that is not listed is a 404 `not_found`, a method
that a path does not have a 405 `method_not_allowed` with `Allow`, and OPTIONS tells a path's methods. HEAD answers as
GET without the body. A job belongs to the client (`client_id` or `azp` of the token) that created it.
"""


class Security(Struct, frozen=True):
    """Where clients get tokens, and the scope that stands for each need."""

    token_url: str = "https://member-center.example/oauth2/token"  # noqa: S105 - an address
    read: str = "converter:job.read"
    write: str = "converter:job.write"

    def scope(self, need: str) -> str:
        """The scope for `read` or `write`."""
        return self.read if need == "read" else self.write


def document(handlers: Iterable[HTTPRouteHandler], security: Security | None = None) -> dict[str, Any]:
    """The document of what `handlers` serve."""
    return _Document(list(handlers), security or Security()).whole()


class _Document:
    def __init__(self, handlers: list[HTTPRouteHandler], security: Security) -> None:
        self._handlers, self._security = handlers, security
        operations = [_operation(handler) for handler in handlers]
        bodies = [answer.body for operation in operations for answer in operation.answers.values()]
        bodies += [operation.body.schema for operation in operations if operation.body]
        types = [FieldError, *(body for body in bodies if isinstance(body, type))]
        _, self._schemas = msgspec.json.schema_components(types, ref_template=SCHEMAS + "{name}")
        about_jobs = [handler for handler in handlers if "{job_id:str}" in _path(handler)]
        self._job_operations = [handler.handler_name for handler in about_jobs]
        self._job_operations += [_head_id(handler.handler_name) for handler in about_jobs if _has_head(handler)]

    def whole(self) -> dict[str, Any]:
        paths: dict[str, Any] = {}
        for handler in self._handlers:
            methods = paths.setdefault(re.sub(r":\w+\}", "}", _path(handler)), {})
            for method in sorted(handler.http_methods):
                methods[method.lower()] = described = self._described(handler)
            if _has_head(handler):
                methods["head"] = _without_bodies(described)
        return {
            "openapi": "3.1.0",
            "info": {
                "title": "Kneron Model Converter",
                "version": version("converter-api-gateway"),
                "description": DESCRIPTION,
                "license": {"name": "MIT", "identifier": "MIT"},
            },
            "servers": [{"url": "/"}],
            "paths": paths,
            "components": {
                "schemas": dict(sorted((self._schemas | {"Error": _error_schema()}).items())),
                "headers": {
                    name: {
                        "description": header.description,
                        "required": name in OF_EVERY_ANSWER,
                        "schema": header.schema,
                    }
                    for name, header in HEADERS.items()
                },
                "examples": {
                    code: {"value": msgspec.json.decode(envelope(Refusal(code), EXAMPLE_ID))} for code in ERRORS
                },
                "securitySchemes": self._schemes(),
            },
        }

    def _schemes(self) -> dict[str, Any]:
        scopes = {self._security.read: "Read the client's jobs.", self._security.write: "Create and change jobs."}
        flow = {"tokenUrl": self._security.token_url, "scopes": scopes}
        return {
            "member_center": {"type": "oauth2", "flows": {"clientCredentials": flow}},
            "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT (RFC 9068)"},
        }

    def _described(self, handler: HTTPRouteHandler) -> dict[str, Any]:
        operation, need = _operation(handler), handler.opt["requires"]
        summary, _, description = inspect.cleandoc(handler.fn.__doc__ or handler.handler_name).partition("\n\n")
        described: dict[str, Any] = {
            "operationId": handler.handler_name,
            "tags": [operation.tag],
            "summary": " ".join(summary.split()),
            "parameters": [
                *(_path_parameter(name) for name in re.findall(r"\{(\w+):", _path(handler))),
                *map(_parameter, operation.parameters),
            ],
            "responses": self._responses(handler, operation),
            "security": [{"member_center": [self._security.scope(need)]}, {"bearer": []}] if need else [],
        }
        if description:
            described["description"] = description.partition("\n\nRaises:")[0]
        if operation.body:
            described["requestBody"] = self._body(operation.body)
        return described

    def _responses(self, handler: HTTPRouteHandler, operation: Operation) -> dict[str, Any]:
        always = OF_EVERY_ANSWER + (OF_COUNTED_ANSWERS if handler.opt["requires"] else ())
        responses = {
            str(status): self._answer(answer, (*answer.headers, *always))
            for status, answer in operation.answers.items()
        }
        codes: dict[int, list[str]] = {}
        for code in dict.fromkeys([*_implied(handler, operation), *operation.refusals]):
            codes.setdefault(ERRORS[code].status, []).append(code)
        responses |= {str(status): _refused(of_status, handler, always) for status, of_status in codes.items()}
        return dict(sorted(responses.items()))

    def _answer(self, answer: Answer, headers: tuple[str, ...]) -> dict[str, Any]:
        described: dict[str, Any] = {"description": answer.description, "headers": _headers(headers)}
        if answer.body is not None:
            kinds = (answer.media_type,) if isinstance(answer.media_type, str) else answer.media_type
            described["content"] = {kind: {"schema": self._schema(answer.body)} for kind in kinds}
        place = next((place for type_, place in JOB_IDS if type_ is answer.body), None)
        if place:
            described["links"] = {
                name: {"operationId": name, "parameters": {"job_id": place}} for name in self._job_operations
            }
        return described

    def _body(self, body: Body) -> dict[str, Any]:
        media: dict[str, Any] = {"schema": self._schema(body.schema)}
        if body.files:
            media["encoding"] = {name: _file_part(name, file) for name, file in body.files.items()}
        return {"required": body.required, "content": {body.media_type: media}}

    def _schema(self, body: type | Schema) -> Schema:
        if not isinstance(body, type):
            return body
        return {"$ref": SCHEMAS + body.__name__}


def _operation(handler: HTTPRouteHandler) -> Operation:
    undocumented = Operation(answers={200: Answer("Not documented.")}, tag="undocumented")
    operation: Operation = handler.opt.get("operation", undocumented)
    return operation


def _path(handler: HTTPRouteHandler) -> str:
    (path,) = handler.paths
    return path


def _has_head(handler: HTTPRouteHandler) -> bool:
    """Whether there is a use for it: a stream has no end to wait for."""
    answers = _operation(handler).answers.values()
    return "GET" in handler.http_methods and not any("text/event-stream" in answer.media_type for answer in answers)


def _head_id(operation_id: str) -> str:
    return f"{operation_id}_head"


def _implied(handler: HTTPRouteHandler, operation: Operation) -> list[str]:
    path = _path(handler)
    return [
        *EVERY_REQUEST,
        *(WITH_TOKEN if handler.opt["requires"] else ()),
        *(WITH_PATH_PARAMETER if "{" in path else ()),
        *(WITH_JOB if "{job_id:str}" in path else ()),
        *(WITH_BODY if operation.body else ()),
    ]


def _refused(codes: list[str], handler: HTTPRouteHandler, always: tuple[str, ...]) -> dict[str, Any]:
    status = ERRORS[codes[0]].status
    own = {401: ("WWW-Authenticate",), 403: ("WWW-Authenticate",), 429: ("Retry-After",)}.get(status, ())
    uncounted = status in {400, 401, 404, 431, 500, 503} or not handler.opt["requires"]
    headers = (*own, *(OF_EVERY_ANSWER if uncounted else always))
    return {
        "description": " ".join(f"`{code}`: {ERRORS[code].message}" for code in codes),
        "headers": _headers(headers),
        "content": {
            "application/json": {
                "schema": {"$ref": f"{SCHEMAS}Error"},
                "examples": {code: {"$ref": f"#/components/examples/{code}"} for code in codes},
            }
        },
    }


def _error_schema() -> Schema:
    fields = {"type": "array", "items": {"$ref": f"{SCHEMAS}FieldError"}, "description": "Every bad field."}
    properties = {
        "code": {"type": "string", "enum": list(ERRORS)},
        "message": {"type": "string"},
        "details": {
            "type": "object",
            "properties": {"hint": {"type": "string", "description": "What the caller can do."}, "fields": fields},
        },
        "request_id": {"type": "string"},
    }
    error = {
        "type": "object",
        "required": list(properties),
        "additionalProperties": False,
        "properties": properties,
    }
    return {"type": "object", "required": ["error"], "additionalProperties": False, "properties": {"error": error}}


def _headers(names: Iterable[str]) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": parameter.place,
        "required": parameter.required,
        "description": parameter.description,
        "schema": parameter.schema,
    }


def _file_part(name: str, file: FilePart) -> dict[str, Any]:
    disposition = f'form-data; name="{name}"; filename="{file.file_name}"'
    header = {"required": True, "schema": {"type": "string"}, "example": disposition}
    return {"contentType": file.media_types, "headers": {"Content-Disposition": header}}


def _path_parameter(name: str) -> dict[str, Any]:
    schema, description = PATH_PARAMETERS[name]
    return {"name": name, "in": "path", "required": True, "description": description, "schema": schema}


def _without_bodies(described: Mapping[str, Any]) -> dict[str, Any]:
    responses = {
        status: {key: value for key, value in response.items() if key in {"description", "headers"}}
        for status, response in described["responses"].items()
    }
    return {**described, "operationId": _head_id(described["operationId"]), "responses": responses}


def _print() -> None:
    from converter.gateway.app import PUBLIC  # noqa: PLC0415 - the application needs this module

    sys.stdout.write(msgspec.json.format(msgspec.json.encode(document(PUBLIC))).decode() + "\n")


if __name__ == "__main__":
    _print()
