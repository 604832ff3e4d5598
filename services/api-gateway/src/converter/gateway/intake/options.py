"""What a client may ask for: form fields become a `JobOrder`, or a list of everything that is wrong with them.

Every message says what was found and what is allowed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, get_args

from msgspec import Struct

from converter.contracts.job import STAGES, Options, Platform, Preprocess, PresetName, Stage
from converter.gateway.http.errors import FieldError
from converter.gateway.http.written import Bad, decoded_object, number, shown
from converter.gateway.intake.quantization import check_quantization, check_with_platform

REPEATABLE = frozenset({"input_shape"})
USER_FIELD = "user_id"
REQUIRED = (USER_FIELD, "platform", "model_id", "version")
PLATFORMS: tuple[str, ...] = get_args(Platform)
PRESETS: tuple[PresetName, ...] = get_args(PresetName)
VENDOR_MODEL_ID_MAX = 32767
MODEL_ID_MAX = 65535
RANK_MAX = 8
DIMENSION_MAX = 2**31 - 1
CHANNELS_MAX = 64
INPUT_NAME_MAX_CHARS = 256
INPUTS_MAX = 32

T = TypeVar("T")
FieldReader = Callable[[Sequence[str]], object]
"""What a field's texts say; raises `Bad`."""


class JobOrder(Struct, frozen=True, kw_only=True):
    """A valid set of fields.

    `model_sha256` is the digest that the client expects of its model, or that names one which it has sent before;
    `model_upload_id` names a resumable upload. At most one of file and upload is there.
    """

    user_id: str | None
    """None for a job that is no user's."""
    platform: Platform
    model_id: int
    version: str
    options: Options
    model_sha256: str | None
    model_upload_id: str | None
    warnings: tuple[str, ...]


class Fields:
    """The form's fields as they arrive; each may come once, but for the repeatable ones.

    Args:
        with_user: whether they say whose job it is.
    """

    def __init__(self, *, with_user: bool = True) -> None:
        self.texts: dict[str, list[str]] = {}
        """As they were sent."""
        self._readers = {name: read for name, read in _READERS.items() if with_user or name != USER_FIELD}

    def add(self, name: str, text: str) -> None:
        """Take one field, whatever it says."""
        self.texts.setdefault(name, []).append(text)

    def problems(self) -> list[FieldError]:
        """All that is wrong with what has arrived so far; a field that has not may still come."""
        return _Reader(self.texts, self._readers).problems

    def user_id(self) -> str | None:
        """The user, once a good one has arrived."""
        return _Reader(self.texts, self._readers).values.get(USER_FIELD)

    def order(self, *, with_file: bool = True) -> JobOrder | list[FieldError]:
        """What is asked for, or all that is wrong with it; no more fields will come.

        Args:
            with_file: whether the model has come as a file.
        """
        reader = _Reader(self.texts, self._readers)
        wrong = [FieldError(name, "missing") for name in REQUIRED if name in self._readers and name not in self.texts]
        if with_file and "model_upload_id" in self.texts:
            wrong.append(FieldError("model_upload_id", "found with a model file; allowed: one of them"))
        if wrong or reader.problems:
            return [*wrong, *reader.problems]
        values = reader.values
        model_id = values["model_id"]
        warnings = [f"model_id {model_id} is one of the vendor's, which end at {VENDOR_MODEL_ID_MAX}."]
        return JobOrder(
            user_id=values.get(USER_FIELD),
            platform=values["platform"],
            model_id=model_id,
            version=values["version"],
            options=Options(
                last_stage=values.get("targets", Stage.NEF),
                input_shape=values.get("input_shape", {}),
                preprocess=values.get("preprocess", Preprocess(preset="kneron")),
                quantization=values.get("quantization", {}),
            ),
            model_sha256=values.get("model_sha256"),
            model_upload_id=values.get("model_upload_id"),
            warnings=tuple(warnings) if model_id <= VENDOR_MODEL_ID_MAX else (),
        )


class _Reader:
    """Reads every field that it is given; what is good stands in `values`, what is not in `problems`."""

    def __init__(self, texts: Mapping[str, Sequence[str]], readers: Mapping[str, FieldReader]) -> None:
        self._readers = readers
        self.values: dict[str, Any] = {}
        self.problems: list[FieldError] = []
        for name, found in texts.items():
            self._read(name, found)
        quantization, platform = self.values.get("quantization"), self.values.get("platform")
        if quantization is not None and platform is not None:
            self._problems_of("quantization", check_with_platform(quantization, platform))

    def _read(self, name: str, texts: Sequence[str]) -> None:
        read = self._readers.get(name)
        if read is None:
            allowed = ", ".join(["model", "ref_images", *self._readers])
            self.problems.append(FieldError(name, f"unknown; allowed: {allowed}"))
        elif len(texts) > 1 and name not in REPEATABLE:
            self.problems.append(FieldError(name, f"sent {len(texts)} times; allowed: once"))
        else:
            try:
                self.values[name] = read(texts)
            except Bad as bad:
                self._problems_of(name, bad.messages)

    def _problems_of(self, name: str, messages: Sequence[str]) -> None:
        self.problems += [FieldError(name, message) for message in messages]


def _one(read: Callable[[str], T]) -> Callable[[Sequence[str]], T]:
    return lambda texts: read(texts[0])


def _matching(pattern: str, allowed: str) -> Callable[[Sequence[str]], str]:
    expression = re.compile(pattern)

    def read(text: str) -> str:
        if not expression.fullmatch(text):
            raise Bad(f"found {shown(text)}; allowed: {allowed}")
        return text

    return _one(read)


def _one_of(allowed: Sequence[str]) -> Callable[[Sequence[str]], str]:
    def read(text: str) -> str:
        if text not in allowed:
            raise Bad(f"found {shown(text)}; allowed: {', '.join(allowed)}")
        return text

    return _one(read)


def _model_id(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 1 <= int(text) <= MODEL_ID_MAX:
        raise Bad(f"found {shown(text)}; allowed: a whole number from 1 to {MODEL_ID_MAX}")
    return int(text)


def _targets(text: str) -> Stage:
    if text not in STAGES:
        raise Bad(f"found {shown(text)}; allowed: the last stage to run, {', '.join(STAGES)}")
    return Stage(text)


def _input_shapes(texts: Sequence[str]) -> dict[str, tuple[int, ...]]:
    if len(texts) > INPUTS_MAX:
        raise Bad(f"found {len(texts)} shapes; allowed: at most {INPUTS_MAX}")
    shapes: dict[str, tuple[int, ...]] = {}
    for text in texts:
        name, _, dimensions = text.rpartition(":")
        sizes = dimensions.split(",")
        if not all(re.fullmatch(r" *[0-9]{1,10} *", size) for size in sizes) or len(name) > INPUT_NAME_MAX_CHARS:
            raise Bad(f"found {shown(text)}; allowed: name:1,3,224,224, or 1,3,224,224 for a single input")
        shape = tuple(int(size) for size in sizes)
        if len(shape) > RANK_MAX or not all(1 <= size <= DIMENSION_MAX for size in shape):
            raise Bad(f"found {shown(text)}; allowed: up to {RANK_MAX} dimensions from 1 to {DIMENSION_MAX}")
        if name in shapes:
            raise Bad(f"found two shapes for {shown(name)}" if name else "found two shapes without an input's name")
        shapes[name] = shape
    if "" in shapes and len(shapes) > 1:
        raise Bad("found a shape without an input's name among several; name them all")
    return shapes


def _preprocess(text: str) -> Preprocess:
    if not text.lstrip().startswith("{"):
        for preset in PRESETS:
            if text == preset:
                return Preprocess(preset=preset)
        raise Bad(f'found {shown(text)}; allowed: {", ".join(PRESETS)}, or {{"mean": …, "scale": …}}')
    given = decoded_object(text)
    problems = [f"unknown key {shown(key)}; allowed: mean, scale, channel_order" for key in given if key not in _PIXELS]
    read: dict[str, Any] = {}
    for key, reader in _PIXELS.items():
        if key in given:
            try:
                read[key] = reader(key, given[key])
            except Bad as bad:
                problems += bad.messages
    mean, scale = read.get("mean", (0.0,)), read.get("scale", (1.0,))
    if not given:
        problems.append("found an empty object; allowed: mean, scale, channel_order")
    if len(mean) > 1 and len(scale) > 1 and len(mean) != len(scale):
        problems.append(f"mean has {len(mean)} numbers and scale {len(scale)}; allowed: one, or one for each channel")
    if problems:
        raise Bad(*problems)
    return Preprocess(mean=mean, scale=scale, channel_order=read.get("channel_order"))


def _channels(key: str, value: object) -> tuple[float, ...]:
    numbers = value if isinstance(value, list) else [value]
    if not 1 <= len(numbers) <= CHANNELS_MAX:
        raise Bad(f"{key} has {len(numbers)} numbers; allowed: 1 to {CHANNELS_MAX}")
    read = tuple(number(key, entry) for entry in numbers)
    if key == "scale" and 0.0 in read:
        raise Bad("scale: found 0; allowed: numbers other than 0")
    return read


def _channel_order(key: str, value: object) -> str:
    if value not in ("rgb", "bgr"):
        raise Bad(f"{key}: found {shown(value)}; allowed: rgb, bgr")
    return str(value)


_PIXELS: dict[str, Callable[[str, object], object]] = {
    "mean": _channels,
    "scale": _channels,
    "channel_order": _channel_order,
}


_READERS: dict[str, FieldReader] = {
    USER_FIELD: _matching(r"[A-Za-z0-9._-]{1,128}", "1 to 128 of A-Z a-z 0-9 . _ -"),
    "platform": _one_of(PLATFORMS),
    "model_id": _one(_model_id),
    "version": _matching(r"[0-9A-Fa-f]{4}", "four hex digits, as in 0001"),
    "input_shape": _input_shapes,
    "preprocess": _one(_preprocess),
    "quantization": _one(check_quantization),
    "targets": _one(_targets),
    "model_sha256": _matching(r"[0-9a-f]{64}", "64 lower-case hex digits"),
    "model_upload_id": _matching(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "the id of an upload"),
}
