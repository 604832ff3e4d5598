"""The document says what the application serves, all of it, and the committed copy is the same."""

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

from converter.gateway.app import PUBLIC
from converter.gateway.http.errors import ERRORS
from converter.gateway.openapi.document import document
from converter.gateway.openapi.documentation import HEADERS
from converter.gateway.openapi.page import POLICY, page

COMMITTED = Path(__file__).parents[3] / "docs" / "openapi.json"
OF_NO_OPERATION = {"method_not_allowed"}
"""It answers what the document does not have."""


@pytest.fixture(scope="module")
def described() -> dict[str, Any]:
    return document(PUBLIC)


def operations(described: dict[str, Any]) -> list[dict[str, Any]]:
    return [operation for methods in described["paths"].values() for operation in methods.values()]


@pytest.mark.parametrize("handler", PUBLIC, ids=lambda handler: handler.handler_name)
def test_every_handler_says_what_it_does(handler: HTTPRouteHandler):
    assert "operation" in handler.opt, (
        f"{handler.handler_name} carries no Operation (converter.gateway.openapi.documentation)"
    )
    assert handler.fn.__doc__


def test_every_route_is_described(described: dict[str, Any]):
    served = {
        (re.sub(r":\w+\}", "}", path), method.lower())
        for handler in PUBLIC
        for path in handler.paths
        for method in handler.http_methods
    }
    found = {(path, method) for path, methods in described["paths"].items() for method in methods if method != "head"}
    assert found == served


def test_the_committed_copy_is_up_to_date(described: dict[str, Any]):
    fresh = msgspec.json.format(msgspec.json.encode(described)).decode() + "\n"
    assert COMMITTED.read_text() == fresh, "run: python -m converter.gateway.openapi.document > docs/openapi.json"


def test_every_error_has_an_example_and_an_operation_that_answers_it(described: dict[str, Any]):
    assert set(described["components"]["examples"]) == set(ERRORS)
    answered = {
        code
        for operation in operations(described)
        for response in operation["responses"].values()
        for media in response.get("content", {}).values()
        for code in media.get("examples", {})
    }
    assert set(ERRORS) - answered == OF_NO_OPERATION


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


def test_what_needs_a_token_says_so_and_tells_of_the_rate_limit(described: dict[str, Any]):
    for operation in operations(described):
        headers = next(iter(operation["responses"].values()))["headers"]
        assert "X-Request-Id" in headers
        assert ("RateLimit-Limit" in headers) == ("401" in operation["responses"]) == bool(operation["security"])
    assert set(described["components"]["headers"]) == set(HEADERS)


def test_an_undocumented_handler_stands_out():
    @get("/odd", opt={"requires": None})
    async def odd() -> None:
        """Do something."""

    assert document([odd])["paths"]["/odd"]["get"]["tags"] == ["undocumented"]


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
