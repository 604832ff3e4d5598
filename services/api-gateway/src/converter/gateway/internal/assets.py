"""The web page: files of the package, read once and served as they are."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import PurePosixPath

from litestar import Request, Response, get
from litestar.datastructures import State
from msgspec import Struct

from converter.gateway.http.answers import etag, not_modified
from converter.gateway.http.errors import Refusal
from converter.gateway.http.headers import combined
from converter.gateway.openapi.documentation import IF_NONE_MATCH, NOT_MODIFIED, Answer, Operation

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
MEDIA_TYPES = {  # the framework adds the character set of what is text
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".woff2": "font/woff2",
}


class Asset(Struct, frozen=True):
    """One file."""

    content: bytes
    media_type: str
    tag: str


class Assets:
    """The files, by their path below the directory.

    Args:
        root: `index.html`, and the directory `assets`.

    Raises:
        KeyError: a file is of a kind that `MEDIA_TYPES` does not know.
    """

    def __init__(self, root: Traversable) -> None:
        self._assets = {
            path: Asset(content, MEDIA_TYPES[PurePosixPath(path).suffix], etag(content))
            for path, content in _below(root, "")
        }

    @classmethod
    def packaged(cls) -> Assets:
        """Those that ship with the gateway."""
        return cls(files("converter.gateway") / "web")

    def answer(self, path: str, if_none_match: str | None) -> Response[bytes]:
        """The file, or 304 when the client has it.

        Raises:
            Refusal: `not_found`.
        """
        asset = self._assets.get(path)
        if asset is None:
            raise Refusal("not_found")
        headers = {"ETag": asset.tag, "Cache-Control": "no-cache", "Content-Security-Policy": POLICY}
        if not_modified(if_none_match, asset.tag):
            return Response(b"", status_code=304, headers=headers)
        return Response(asset.content, media_type=asset.media_type, headers=headers)


def _below(directory: Traversable, prefix: str) -> Iterator[tuple[str, bytes]]:
    for entry in directory.iterdir():
        if entry.is_dir():
            yield from _below(entry, f"{prefix}{entry.name}/")
        else:
            yield prefix + entry.name, entry.read_bytes()


_PAGE = Operation(
    answers={200: Answer("The page.", {"type": "string"}, ("ETag",), "text/html"), 304: NOT_MODIFIED},
    parameters=(IF_NONE_MATCH,),
    tag="page",
)
_ASSET = Operation(
    answers={200: Answer("The file.", {"type": "string"}, ("ETag",), tuple(MEDIA_TYPES.values())), 304: NOT_MODIFIED},
    parameters=(IF_NONE_MATCH,),
    tag="page",
)


@get("/", opt={"requires": None, "operation": _PAGE})
async def get_page(request: Request[None, None, State], assets: Assets) -> Response[bytes]:
    """The page."""
    return assets.answer("index.html", combined(request.scope["headers"], b"if-none-match"))


@get("/assets/{path:path}", opt={"requires": None, "operation": _ASSET})
async def get_asset(request: Request[None, None, State], assets: Assets, path: str) -> Response[bytes]:
    """What the page is made of."""
    return assets.answer(f"assets{path}", combined(request.scope["headers"], b"if-none-match"))
