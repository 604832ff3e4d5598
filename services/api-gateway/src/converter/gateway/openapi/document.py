"""The OpenAPI 3.1 document of a face, made from its handlers: `python -m converter.gateway.openapi.document public`.

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

from converter.gateway.http.errors import ERRORS, FieldError
from converter.gateway.openapi.documentation import (
    HEADERS,
    JSON,
    OF_COUNTED_ANSWERS,
    OF_EVERY_ANSWER,
    OF_REFUSALS,
    PATH_PARAMETERS,
    Answer,
    Body,
    FilePart,
    Operation,
    Parameter,
    Schema,
)
from converter.gateway.openapi.faces import SCHEMAS, USER_ASSERTION, Face, Security, internal_face, public_face

WITH_PATH_PARAMETER = ("not_found",)
WITH_JOB = ("job_not_found",)
WITH_BODY = ("request_timeout", "unsupported_media_type", "file_too_large")
BEFORE_COUNTING = ("headers_too_large",)
"""Nothing has looked at a request that is answered so."""
OF_NO_OPERATION = ("method_not_allowed",)
"""It answers what the document does not have."""


def document(handlers: Iterable[HTTPRouteHandler], face: Face) -> dict[str, Any]:
    """The document of what `handlers` serve."""
    return _Document(list(handlers), face).whole()


class _Document:
    def __init__(self, handlers: list[HTTPRouteHandler], face: Face) -> None:
        self._handlers, self._face = handlers, face
        operations = [_operation(handler) for handler in handlers]
        bodies = [answer.body for operation in operations for answer in operation.answers.values()]
        bodies += [operation.body.schema for operation in operations if operation.body]
        types = [FieldError, *(body for body in bodies if isinstance(body, type))]
        _, self._schemas = msgspec.json.schema_components(types, ref_template=SCHEMAS + "{name}")
        about_jobs = [handler for handler in handlers if "{job_id:str}" in _path(handler)]
        self._job_operations = [handler.handler_name for handler in about_jobs]
        self._job_operations += [_head_id(handler.handler_name) for handler in about_jobs if _has_head(handler)]
        answered = {code for handler in handlers for code in self._codes(handler)}
        self._answered = [code for code in ERRORS if code in answered or code in OF_NO_OPERATION]

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
                "title": self._face.title,
                "version": version("converter-api-gateway"),
                "description": self._face.description,
                "license": {"name": "MIT", "identifier": "MIT"},
            },
            "servers": [{"url": "/"}],
            "paths": paths,
            "components": {
                "schemas": dict(sorted((self._schemas | {"Error": self._error()}).items())),
                "headers": {
                    name: {
                        "description": header.description,
                        "required": name in OF_EVERY_ANSWER,
                        "schema": header.schema,
                    }
                    for name, header in HEADERS.items()
                },
                "examples": {code: self._face.example(code) for code in self._answered},
                "securitySchemes": self._face.security.schemes() if self._face.security else {},
            },
        }

    def _error(self) -> Schema:
        return self._face.error({"type": "string", "enum": self._answered})

    def _codes(self, handler: HTTPRouteHandler) -> list[str]:
        """What the handler may refuse with: what any may, what follows from its path and its body, and its own."""
        path, operation = _path(handler), _operation(handler)
        codes = [
            *self._face.refusals(handler.http_methods, handler.opt["requires"]),
            *(WITH_PATH_PARAMETER if "{" in path else ()),
            *(WITH_JOB if "{job_id:str}" in path else ()),
            *(WITH_BODY if operation.body else ()),
            *operation.refusals,
        ]
        return list(dict.fromkeys(codes))

    def _described(self, handler: HTTPRouteHandler) -> dict[str, Any]:
        operation, need = _operation(handler), handler.opt["requires"]
        summary, _, description = inspect.cleandoc(handler.fn.__doc__ or handler.handler_name).partition("\n\n")
        described: dict[str, Any] = {
            "operationId": handler.handler_name,
            "tags": [operation.tag],
            "summary": " ".join(summary.split()),
            "parameters": [
                *(_path_parameter(name) for name in re.findall(r"\{(\w+):", _path(handler))),
                *map(_parameter, (*operation.parameters, *((USER_ASSERTION,) if need else ()))),
            ],
            "responses": self._responses(handler, operation),
            "security": self._needs(need),
        }
        if description:
            described["description"] = description.partition("\n\nRaises:")[0]
        if operation.body:
            described["requestBody"] = self._body(operation.body)
        return described

    def _needs(self, need: str | None) -> list[dict[str, list[str]]]:
        if need is None or self._face.security is None:
            return []
        return [{"member_center": [self._face.security.scope(need)]}, {"bearer": []}]

    def _responses(self, handler: HTTPRouteHandler, operation: Operation) -> dict[str, Any]:
        always = OF_EVERY_ANSWER + operation.headers + (OF_COUNTED_ANSWERS if handler.opt["requires"] else ())
        responses = {
            str(status): self._answer(answer, (*_carried(answer), *always))
            for status, answer in operation.answers.items()
        }
        codes: dict[int, list[str]] = {}
        for code in self._codes(handler):
            codes.setdefault(ERRORS[code].status, []).append(code)
        responses |= {str(status): _refused(of_status, operation, always) for status, of_status in codes.items()}
        return dict(sorted(responses.items()))

    def _answer(self, answer: Answer, headers: tuple[str, ...]) -> dict[str, Any]:
        described: dict[str, Any] = {"description": answer.description, "headers": _headers(headers)}
        if answer.body is not None:
            kinds = (answer.media_type,) if isinstance(answer.media_type, str) else answer.media_type
            described["content"] = {kind: {"schema": self._schema_as(kind, answer.body)} for kind in kinds}
        place = next((place for type_, place in self._face.job_ids if type_ is answer.body), None)
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

    def _schema_as(self, kind: str, body: type | Schema) -> Schema:
        """A type is JSON's; in another form, as a page, it is text."""
        return {"type": "string"} if isinstance(body, type) and kind != JSON else self._schema(body)

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


def _carried(answer: Answer) -> tuple[str, ...]:
    """The headers that an answer has of its own; one with a type is JSON, which has an entity tag."""
    tagged = ("ETag",) if isinstance(answer.body, type) else ()
    return (*answer.headers, *tagged, *(("Cache-Control",) if answer.body is not None else ()))


def _refused(codes: list[str], operation: Operation, always: tuple[str, ...]) -> dict[str, Any]:
    own = [name for code in codes for name in (*OF_REFUSALS.get(code, ()), *operation.refused_with.get(code, ()))]
    of_all = OF_EVERY_ANSWER if codes[0] in BEFORE_COUNTING else always
    headers = (*own, "Cache-Control", *of_all)
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


def main() -> None:
    """Print the document of the face that is named."""
    from converter.gateway.app import INTERNAL, PUBLIC  # noqa: PLC0415 - the application needs this module

    documents = {"public": (PUBLIC, public_face(Security())), "internal": (INTERNAL, internal_face())}
    handlers, face = documents[sys.argv[1]]
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(document(handlers, face))).decode() + "\n")


if __name__ == "__main__":
    main()
