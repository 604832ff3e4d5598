"""Reads a Struct from the environment, or says everything that keeps it from being read.

    class PromoterSettings(Struct, frozen=True, kw_only=True):
        nats: NatsSettings  # a Struct in a Struct is flattened
        promote_timeout_ms: Annotated[int, Meta(ge=1, description="…")] = 300_000  # PROMOTE_TIMEOUT_MS

A field's variable is its name in upper case; a variable that is set but empty counts as not set. `Meta` bounds what is
allowed and describes the field; a field without a default is required. In `Meta(extra={…})` this module reads

    allowed        what to call the allowed values, where a pattern would not tell a person
    required_when  {field: value}: required as soon as that field of the same Struct has that value
    production     a pattern that the value must match when ENVIRONMENT=production

A `Secret` may also come from the file that `<VARIABLE>_FILE` names. What ties several fields together the Struct itself
checks (`CrossChecked`). In production the placeholders of the example file are refused.

    SettingsError    every missing or bad variable at once
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar, cast, runtime_checkable

import msgspec
from msgspec import NODEFAULT, Struct, inspect, structs

S = TypeVar("S", bound=Struct)
_PLACEHOLDER = re.compile(r"REPLACE-ME|\.invalid\b", re.IGNORECASE)
_BETWEEN_ADDRESSES = re.compile(r",(?=(?:nats|tls|wss?)://)")
_USER = re.compile(r"^(\w+://)?.*@", re.DOTALL)
_SWITCH = {"on": "true", "yes": "true", "off": "false", "no": "false"}


class Secret:
    """Text that shows itself only to who calls `reveal`: not in logs, tracebacks, reprs or format strings."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself."""
        return self._text

    def __repr__(self) -> str:
        return "Secret(…)"

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)


class Problem(NamedTuple):
    """One variable that stops the process. `found` never holds a secret."""

    variable: str
    found: str
    allowed: str

    def __str__(self) -> str:
        return f"{self.variable}: {self.found}; allowed: {self.allowed}"


class SettingsError(Exception):
    """The environment does not make the settings; `problems` is all that is wrong with it."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class Variable(NamedTuple):
    """What `env.example` says of a variable. `default` is as it would be written; `needed_when` reads `NAME=value`."""

    variable: str
    default: str | None
    required: bool
    description: str
    allowed: str
    secret: bool
    needed_when: str | None


@runtime_checkable
class CrossChecked(Protocol):
    """A settings Struct whose fields depend on each other."""

    def conflicts(self) -> Iterable[Problem]:
        """What is wrong between fields that are each right alone."""


def load(cls: type[S], environ: Mapping[str, str]) -> S:
    """The settings `cls` from `environ`.

    Raises:
        SettingsError: variables are missing or bad.
    """
    problems: list[Problem] = []
    settings = _struct(cls, environ, problems)
    if settings is None:
        raise SettingsError(problems)
    return settings


def describe(cls: type[Struct]) -> Iterator[Variable]:
    """Every variable that `load(cls, …)` reads, in the order of the fields."""
    for field in _fields(cls):
        if field.nested:
            yield from describe(field.nested)
        else:
            yield Variable(
                field.variable,
                _written(field.default),
                field.default is NODEFAULT,
                field.description,
                field.allowed,
                field.secret,
                " and ".join(f"{name.upper()}={value}" for name, value in field.required_when.items()) or None,
            )


class _Field(NamedTuple):
    name: str
    annotation: Any
    default: Any
    kind: inspect.Type
    description: str
    extra: dict[str, Any]

    @property
    def variable(self) -> str:
        return self.name.upper()

    @property
    def nested(self) -> type[Struct] | None:
        return self.kind.cls if isinstance(self.kind, inspect.StructType) else None

    @property
    def secret(self) -> bool:
        return isinstance(self.kind, inspect.CustomType) and self.kind.cls is Secret

    @property
    def required_when(self) -> dict[str, Any]:
        return cast("dict[str, Any]", self.extra.get("required_when", {}))

    @property
    def allowed(self) -> str:
        return self.extra.get("allowed") or _allowed(self.kind)


def _fields(cls: type[Struct]) -> Iterator[_Field]:
    for field in structs.fields(cls):
        kind, description, extra = inspect.type_info(field.type), "", {}
        if isinstance(kind, inspect.Metadata):
            description = (kind.extra_json_schema or {}).get("description", "")
            extra, kind = kind.extra or {}, kind.type
        if isinstance(kind, inspect.UnionType):  # of a type and None: only the type can be written
            kind = next(member for member in kind.types if not isinstance(member, inspect.NoneType))
        default = field.default if field.default_factory is NODEFAULT else field.default_factory()
        yield _Field(field.name, field.type, default, kind, description, extra)


def _allowed(kind: inspect.Type) -> str:
    match kind:
        case inspect.IntType() | inspect.FloatType():
            bounds = {"above": kind.gt, "at least": kind.ge, "below": kind.lt, "at most": kind.le}
            limits = [f"{word} {bound}" for word, bound in bounds.items() if bound is not None]
            return ", ".join(["an integer" if isinstance(kind, inspect.IntType) else "a number", *limits])
        case inspect.BoolType():
            return "on or off"
        case inspect.LiteralType():
            return ", ".join(str(value) for value in kind.values)
        case inspect.StrType(pattern=str(pattern)):
            return f"text that matches {pattern}"
        case inspect.CustomType() if kind.cls is Path:
            return "a path"
    return "text"


def _written(default: Any) -> str | None:  # noqa: ANN401 - a default has any of the types that a field can have
    match default:
        case bool():
            return "on" if default else "off"
        case None | Secret() | "":
            return ""
        case _:
            return None if default is NODEFAULT else str(default)


def _struct(cls: type[S], environ: Mapping[str, str], problems: list[Problem]) -> S | None:
    """`cls` from `environ`, or none, with at least one more problem."""
    before = len(problems)
    values: dict[str, Any] = {}
    absent: list[_Field] = []
    for field in _fields(cls):
        if field.nested:
            values[field.name] = _struct(field.nested, environ, problems)
            continue
        try:
            text = _text(field, environ)
            if text is not None:
                values[field.name] = _value(field, text, production=environ.get("ENVIRONMENT") == "production")
        except _Bad as bad:
            problems.append(Problem(field.variable, bad.found, field.allowed))
            continue
        if text is None:
            absent.append(field)
            values[field.name] = field.default
    problems += [Problem(field.variable, "missing", field.allowed) for field in absent if _needed(field, values)]
    if len(problems) > before:
        return None
    settings = cls(**values)
    if isinstance(settings, CrossChecked):
        problems += settings.conflicts()
    return settings if len(problems) == before else None


def _needed(field: _Field, values: dict[str, Any]) -> bool:
    conditions = field.required_when.items()
    return field.default is NODEFAULT or any(values.get(name) == value for name, value in conditions)


class _Bad(Exception):
    def __init__(self, found: str) -> None:
        super().__init__(found)
        self.found = found


def _text(field: _Field, environ: Mapping[str, str]) -> str | None:
    text = environ.get(field.variable) or None
    file = environ.get(f"{field.variable}_FILE") if field.secret else None
    if not file:
        return text
    if text:
        raise _Bad(f"set twice, here and by {field.variable}_FILE")
    try:
        text = Path(file).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise _Bad(f"{field.variable}_FILE names {file!r}, which cannot be read: {why}") from error
    if not text:
        raise _Bad(f"{field.variable}_FILE names {file!r}, which is empty")
    return text


def _value(field: _Field, text: str, *, production: bool) -> Any:  # noqa: ANN401 - whatever the field's type is
    found = "a value that is not shown" if field.secret else repr(without_password(text))
    if isinstance(field.kind, inspect.BoolType):
        text = _SWITCH.get(text.lower(), text)
    try:
        value = msgspec.convert(text, field.annotation, strict=False, dec_hook=lambda cls, written: cls(written))
    except (msgspec.ValidationError, ValueError):
        # `from None`: the cause would print the text that it could not read.
        raise _Bad(found) from None
    if isinstance(value, float) and not math.isfinite(value):
        raise _Bad(found)
    if production and _PLACEHOLDER.search(text):
        raise _Bad("still a placeholder, which production refuses")
    if production and not re.search(field.extra.get("production", ""), text):
        raise _Bad(f"{found}, which production refuses")
    return value


def without_password(text: str) -> str:
    """`text`, an address or several with commas between, without users and passwords.

    A password may hold commas, or an @ that should have been escaped; only a comma before a scheme ends an address.
    """
    return ",".join(_USER.sub(r"\1…@", address) for address in _BETWEEN_ADDRESSES.split(text))
