"""What the gateway lets through is what the toolchain's calls take."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from types import ModuleType
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standins.vendor_python import STANDINS

from converter.contracts.job import Platform
from converter.contracts.quantization import (
    BITWIDTHS,
    KEYWORDS,
    Between,
    Call,
    Keyword,
    OneOf,
    arguments,
    conflicts,
    conflicts_with_platform,
    with_implied,
)


@pytest.fixture(scope="module")
def ktc() -> Iterator[ModuleType]:
    """The stand-in, for this module alone."""
    before = set(sys.modules)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.syspath_prepend(STANDINS)
        yield importlib.import_module("ktc")
    for name in {"ktc", "failing", "nef_writer"} - before:
        sys.modules.pop(name, None)


def values(keyword: Keyword) -> st.SearchStrategy[Any]:
    match keyword.allowed:
        case OneOf(choices):
            return st.sampled_from(choices)
        case Between(least, most):
            return st.sampled_from([least, most]) | st.floats(least, most)
    return st.just({"conv": "int16"})


PLATFORMS = st.sampled_from(get_args(Platform))
GIVEN = st.fixed_dictionaries({}, optional={name: values(keyword) for name, keyword in KEYWORDS.items()})


@given(PLATFORMS, GIVEN)
def test_the_toolchain_takes_what_the_gateway_lets_through(ktc: ModuleType, platform: str, keywords: dict[str, Any]):
    whole = with_implied(keywords)
    calls: dict[Call, dict[str, Any]] = {
        "evaluate": dict.fromkeys(BITWIDTHS, "int8") | arguments(whole, "evaluate"),
        "analysis": arguments(whole, "analysis"),
        "compile": arguments(whole, "compile"),
    }
    wrong = [*conflicts(keywords), *conflicts_with_platform(keywords, platform)]
    with pytest.raises(ValueError, match=r"\w") if wrong else nullcontext():
        for call, told in calls.items():
            ktc.check(call, platform, told)
