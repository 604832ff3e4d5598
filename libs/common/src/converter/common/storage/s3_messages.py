"""The XML bodies of S3 requests and answers, written and read with the client library's own classes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Generic, TypeVar
from xml.etree import ElementTree as ET

from miniopy_async.datatypes import ListMultipartUploadsResult, parse_list_objects
from miniopy_async.deleteobjects import DeleteObject, DeleteRequest, DeleteResult
from miniopy_async.xml import Element, SubElement, findtext, getbytes, marshal, unmarshal
from msgspec import Struct

from converter.common.storage.port import ObjectInfo, OpenUpload

T = TypeVar("T")


class Page(Struct, Generic[T]):
    """One page of a listing, and the query of the next."""

    entries: Sequence[T]
    following: dict[str, str] | None


def completion(etags: Iterable[str]) -> bytes:
    """The request that joins parts 1, 2, 3 … into an object."""
    root = Element("CompleteMultipartUpload")
    for number, etag in enumerate(etags, 1):
        part = SubElement(root, "Part")
        SubElement(part, "PartNumber", str(number))
        SubElement(part, "ETag", etag)
    body: bytes = getbytes(root)
    return body


def deletion(keys: Iterable[str]) -> bytes:
    """The request that deletes objects."""
    body: bytes = marshal(DeleteRequest([DeleteObject(key) for key in keys]))
    return body


def deleted(body: str) -> tuple[int, str]:
    """How many objects were deleted (or were not there), and why the first of the others was not."""
    result = unmarshal(DeleteResult, body)
    why = next((f"{error.name}: {error.code} {error.message}" for error in result.error_list), body[:200])
    return len(result.object_list), why


def initiated(body: str) -> str:
    """The id of the multipart upload that was begun."""
    root = ET.fromstring(body)  # noqa: S314 - from the storage that we trust with the artifacts themselves
    return findtext(root, "UploadId", strict=True) or ""


def objects(body: str) -> Page[ObjectInfo]:
    """A page of ListObjectsV2."""
    found, truncated, following, _ = parse_list_objects(body)
    return Page(
        [
            ObjectInfo(entry.object_name, entry.size, entry.last_modified)
            for entry in found
            # The rest would be a folder, which somebody may make with a browser.
            if entry.object_name is not None and entry.size is not None and entry.last_modified is not None
        ],
        {"continuation-token": following} if truncated and following else None,
    )


def uploads(body: str) -> Page[OpenUpload]:
    """A page of ListMultipartUploads."""
    result = ListMultipartUploadsResult(body)
    following = {"key-marker": result.next_key_marker or "", "upload-id-marker": result.next_upload_id_marker or ""}
    return Page(
        [
            OpenUpload(entry.object_name, entry.upload_id, entry.initiated_time)
            for entry in result.uploads
            if entry.upload_id is not None and entry.initiated_time is not None
        ],
        {name: value for name, value in following.items() if value} if result.is_truncated else None,
    )
