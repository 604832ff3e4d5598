"""The document of each face says what it serves, all of it, and the committed copy is the same."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import pytest
from jsonschema_rs import Draft202012Validator
from litestar import get
from litestar.handlers import HTTPRouteHandler

from converter.gateway.app import INTERNAL, PUBLIC
from converter.gateway.http.errors import ERRORS
from converter.gateway.intake.options import DIMENSION_MAX, INPUT_NAME_MAX_CHARS, INPUTS_MAX, Fields
from converter.gateway.openapi.document import OF_NO_OPERATION, document
from converter.gateway.openapi.documentation import HEADERS
from converter.gateway.openapi.faces import Security, internal_face, public_face
from converter.gateway.openapi.page import POLICY, page

DOCS = Path(__file__).parents[3] / "docs"
COMMITTED = {"public": DOCS / "openapi.json", "internal": DOCS / "openapi-internal.json"}
HANDLERS = {"public": PUBLIC, "internal": INTERNAL}
DESCRIBED = {"public": document(PUBLIC, public_face(Security())), "internal": document(INTERNAL, internal_face())}


@pytest.fixture(params=list(DESCRIBED))
def face(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def described(face: str) -> dict[str, Any]:
    return DESCRIBED[face]


def operations(described: dict[str, Any]) -> list[dict[str, Any]]:
    return [operation for methods in described["paths"].values() for operation in methods.values()]


@pytest.mark.parametrize("handler", dict.fromkeys((*PUBLIC, *INTERNAL)), ids=lambda handler: handler.handler_name)
def test_every_handler_says_what_it_does(handler: HTTPRouteHandler):
    assert "operation" in handler.opt, (
        f"{handler.handler_name} carries no Operation (converter.gateway.openapi.documentation)"
    )
    assert handler.fn.__doc__


def test_every_route_is_described(face: str, described: dict[str, Any]):
    served = {
        (re.sub(r":\w+\}", "}", path), method.lower())
        for handler in HANDLERS[face]
        for path in handler.paths
        for method in handler.http_methods
    }
    found = {(path, method) for path, methods in described["paths"].items() for method in methods if method != "head"}
    assert found == served


def test_the_committed_copy_is_up_to_date(face: str, described: dict[str, Any]):
    fresh = msgspec.json.format(msgspec.json.encode(described)).decode() + "\n"
    assert COMMITTED[face].read_text() == fresh, "run: make generate"


def test_every_error_has_an_example_and_an_operation_that_answers_it(face: str, described: dict[str, Any]):
    promised = {code for code, error in ERRORS.items() if error.internal == (face == "internal")}
    assert promised <= set(described["components"]["examples"])
    answered = {
        code
        for operation in operations(described)
        for response in operation["responses"].values()
        for media in response.get("content", {}).values()
        for code in media.get("examples", {})
    }
    assert set(described["components"]["examples"]) - answered == set(OF_NO_OPERATION)


def test_examples_fit_the_schema_of_errors(described: dict[str, Any]):
    schema = {"$ref": "#/components/schemas/Error", "components": described["components"]}
    validator = Draft202012Validator(schema)
    for example in described["components"]["examples"].values():
        validator.validate(example["value"])


def test_references_lead_somewhere_and_ids_are_unique(described: dict[str, Any]):
    for reference in re.findall(r'"\$ref":"#/([^"]+)"', msgspec.json.encode(described).decode()):
        found: Any = described
        for key in reference.split("/"):
            found = found[key]
    ids = [operation["operationId"] for operation in operations(described)]
    assert len(ids) == len(set(ids))


def test_what_needs_a_token_says_so_and_tells_of_the_rate_limit():
    described = DESCRIBED["public"]
    for operation in operations(described):
        assert ("X-User-Assertion" in {given["name"] for given in operation["parameters"]}) == bool(
            operation["security"]
        )
        headers = next(iter(operation["responses"].values()))["headers"]
        assert "X-Request-Id" in headers
        assert ("RateLimit-Limit" in headers) == ("401" in operation["responses"]) == bool(operation["security"])
    assert set(described["components"]["headers"]) == set(HEADERS)


def test_operators_are_asked_for_no_token_and_no_user():
    internal = DESCRIBED["internal"]
    assert internal["components"]["securitySchemes"] == {}
    assert not [operation for operation in operations(internal) if operation["security"]]
    form = internal["paths"]["/jobs"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert "user_id" not in form["properties"]
    assert "user_id" not in form["required"]
    assert "user_has_active_job" not in internal["components"]["examples"]


@pytest.mark.parametrize(
    "shapes",
    [
        ["1,3,224,224"],
        ["input:0:1,3,224,224", "mask:1, 10"],
        ["输入:1", f"{'x' * INPUT_NAME_MAX_CHARS}:{DIMENSION_MAX}"],
        [f"model/input_{number}:1" for number in range(INPUTS_MAX)],
    ],
)
def test_the_shapes_that_the_form_takes_fit_its_schema(shapes: list[str]):
    fields = Fields()
    for shape in shapes:
        fields.add("input_shape", shape)
    assert not fields.problems()
    form = DESCRIBED["public"]["paths"]["/api/v1/jobs"]["post"]["requestBody"]["content"]["multipart/form-data"]
    Draft202012Validator(form["schema"]["properties"]["input_shape"]).validate(shapes)


def test_an_undocumented_handler_stands_out():
    @get("/odd", opt={"requires": None})
    async def odd() -> None:
        """Do something."""

    assert document([odd], internal_face())["paths"]["/odd"]["get"]["tags"] == ["undocumented"]


def test_the_page_shows_everything_and_needs_nothing_from_elsewhere(described: dict[str, Any]):
    class Seen(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.ids: set[str | None] = set()
            self.links: set[str | None] = set()
            self.tags: set[str] = set()

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            given = dict(attrs)
            self.tags.add(tag)
            assert not {"src", "style", "onclick"} & set(given)
            self.ids.add(given.get("id"))
            if "href" in given:
                self.links.add(given["href"])

    seen = Seen()
    seen.feed(page(described))
    shown = {operation["operationId"] for operation in operations(described)}
    assert {name for name in shown if not name.endswith("_head")} <= seen.ids
    assert {f"schema-{name}" for name in described["components"]["schemas"]} <= seen.ids
    assert all(link and link.startswith("#") and link[1:] in seen.ids for link in seen.links)
    assert not {"script", "link", "img", "iframe"} & seen.tags
    assert "unsafe" not in POLICY


def test_what_a_page_shows_is_escaped(described: dict[str, Any]):
    hostile = "<img src=x onerror=alert(1)>"
    info = described["info"] | {"title": hostile, "description": f"`{hostile}` {hostile}"}
    assert hostile not in page(described | {"info": info})
