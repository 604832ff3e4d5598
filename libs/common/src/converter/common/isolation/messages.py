"""What service, warden and converter say to each other: JSON, one object a message, never pickle.

A converter has read hostile input, so its words are decoded into these types and nothing else.
"""

from __future__ import annotations

from pathlib import Path, PurePath
from typing import Any, Literal

import msgspec
from msgspec import Struct

from converter.common.conversion import Conversion, ConversionTask
from converter.common.isolation.outcomes import Confinement, Limits
from converter.contracts.report.stage import Obtained

MESSAGE_BYTES = 1 << 17
"""Of an order or a notice; a task is far smaller, for a job's whole record is."""


class Open(Struct, frozen=True, tag="open"):
    """The first order: import these modules, then say that you are ready."""

    preload: tuple[str, ...]
    confinement: Confinement


class Start(Struct, frozen=True, tag="start"):
    """Convert. Carries two descriptors: where the converter's words go, and where its output goes."""

    number: int
    converter: str
    task: ConversionTask
    limits: Limits


class Stop(Struct, frozen=True, tag="stop"):
    """Kill it, if it still runs."""

    number: int


Order = Open | Start | Stop


class Ready(Struct, frozen=True, tag="ready"):
    """The modules are imported."""


class Unready(Struct, frozen=True, tag="unready"):
    """A module cannot be imported."""

    module: str
    error: str


class Forked(Struct, frozen=True, tag="forked"):
    """The converter runs; its process group has the same number as its process."""

    number: int
    pid: int


Cause = Literal["exit", "timeout", "memory", "kernel", "stop", "lost"]


class Ended(Struct, frozen=True, tag="ended", kw_only=True):
    """No process of it is left."""

    number: int
    cause: Cause
    """`exit` is its own end, `lost` (which only the service says) the warden's; the others are why it was killed,
    `kernel` for want of memory on the machine or in the container."""
    exit_code: int
    """As in `subprocess`: a signal's number is negative."""
    peak_memory_bytes: int
    duration_s: float


Notice = Ready | Unready | Forked | Ended


class Confined(Struct, frozen=True, tag="confined"):
    """The first word, before anything of the job is touched."""

    obtained: Obtained


class Advanced(Struct, frozen=True, tag="advanced"):
    """How far it is."""

    fraction: float
    activity: str


class Finished(Struct, frozen=True, tag="finished"):
    """It worked."""

    conversion: Conversion


class Declined(Struct, frozen=True, tag="declined", kw_only=True):
    """It cannot be done; see `ConversionRefused`."""

    code: str
    message: str
    node: str | None = None
    op: str | None = None
    evidence: str | None = None
    hint: str | None = None


class Exhausted(Struct, frozen=True, tag="exhausted"):
    """The kernel refused more memory."""

    evidence: str


Result = Finished | Declined | Exhausted
Word = Confined | Advanced | Result


def _encode_path(value: Any) -> str:  # noqa: ANN401 - whatever msgspec does not know
    if isinstance(value, PurePath):
        return str(value)
    raise NotImplementedError(f"a {type(value).__name__} is not JSON")


def _decode_path(wanted: type, value: Any) -> Any:  # noqa: ANN401 - msgspec's hook is untyped
    if wanted is Path and isinstance(value, str):
        return Path(value)
    raise NotImplementedError(f"{wanted} is not in any message")


_encoder = msgspec.json.Encoder(enc_hook=_encode_path)
encode = _encoder.encode
"""The bytes of a message; they contain no newline.

Raises:
    TypeError, ValueError: a converter's report holds what JSON does not.
"""
decode_order = msgspec.json.Decoder(Order, dec_hook=_decode_path).decode
decode_notice = msgspec.json.Decoder(Notice).decode
decode_word = msgspec.json.Decoder(Word, dec_hook=_decode_path).decode
