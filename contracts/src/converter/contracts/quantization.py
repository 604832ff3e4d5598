"""The vendor's analysis keywords, as far as a client may set them, and what goes together with what.

The table is that of the vendor's toolchain manual (`km.analysis`, `km.evaluate`, `ktc.compile`), without the keywords
that name files or inputs, and with two of ours: `min_snr_db` and `ladder`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

Call = Literal["evaluate", "analysis", "compile"]


class OneOf(NamedTuple):
    """Exactly one of these, in its own type."""

    choices: tuple[str | int, ...]


class Between(NamedTuple):
    """A number in this range, both ends included."""

    least: float
    most: float


class ByNode(NamedTuple):
    """An object with an entry for each node."""


class Keyword(NamedTuple):
    """One keyword: what it may be, and which of the toolchain's calls take it."""

    allowed: OneOf | Between | ByNode
    calls: tuple[Call, ...]


MIN_SNR_DB_MAX = 120.0

_DATAPATH = ("int8", "int16", "mix balance", "mix light", "mixbw")
_PLAIN = OneOf(("int8", "int16"))
_ANALYSIS: tuple[Call, ...] = ("analysis",)
_BOTH: tuple[Call, ...] = ("evaluate", "analysis")

KEYWORDS: dict[str, Keyword] = {
    "mode": Keyword(OneOf((1, 2, 3)), _ANALYSIS),
    "quantize_mode": Keyword(OneOf(("default", "post_sigmoid")), _ANALYSIS),
    "datapath_range_method": Keyword(OneOf(("percentage", "mmse")), _ANALYSIS),
    "percentage": Keyword(Between(0.999, 1.0), _ANALYSIS),
    "percentage_16b": Keyword(Between(0.999, 1.0), _ANALYSIS),
    "percentile": Keyword(Between(0.0, 1.0), _ANALYSIS),
    "outlier_factor": Keyword(Between(0.0, 100.0), _ANALYSIS),
    "datapath_bitwidth_mode": Keyword(OneOf(_DATAPATH), _BOTH),
    "weight_bitwidth_mode": Keyword(OneOf((*_DATAPATH, "int4")), _BOTH),
    "model_in_bitwidth_mode": Keyword(_PLAIN, _BOTH),
    "model_out_bitwidth_mode": Keyword(_PLAIN, _BOTH),
    "cpu_node_bitwidth_mode": Keyword(_PLAIN, _BOTH),
    "flops_ratio": Keyword(Between(0.0, 1.0), _ANALYSIS),
    "quan_config": Keyword(ByNode(), _ANALYSIS),
    "compiler_tiling": Keyword(OneOf(("default", "deep_search")), ("evaluate", "analysis", "compile")),
    "optimize": Keyword(OneOf((0, 1, 2, 3, 4)), _ANALYSIS),
    "min_snr_db": Keyword(Between(0.0, MIN_SNR_DB_MAX), ()),
    "ladder": Keyword(OneOf(("auto",)), ()),
}
COMPILING = tuple(name for name, keyword in KEYWORDS.items() if "compile" in keyword.calls)
QUANTISING = tuple(name for name in KEYWORDS if name not in COMPILING)
"""Those that say nothing to the compiler."""
BITWIDTHS = tuple(name for name in KEYWORDS if name.endswith("_bitwidth_mode"))
_DEFAULTS: dict[str, Any] = {"datapath_range_method": "percentage"} | dict.fromkeys(BITWIDTHS, "int8")
"""The vendor's, for the rules that tie keywords together; they are not written into a job."""
_PERCENTAGE_16B = 0.999999
"""The vendor's default of `percentage_16b`; `percentage` must not be more."""
_MIXBW_PAIRS = {("mixbw", "int16"), ("int16", "mixbw"), ("mixbw", "mixbw")}
"""(datapath, weight): mixbw goes together with nothing else."""


def with_implied(given: Mapping[str, Any]) -> dict[str, Any]:
    """`given`, and `percentage_16b` where its default would be less than the `percentage` given, which it must not."""
    if given.get("percentage", 0.0) > _PERCENTAGE_16B:
        return {"percentage_16b": given["percentage"], **given}
    return dict(given)


def arguments(given: Mapping[str, Any], call: Call) -> dict[str, Any]:
    """Those of the keywords `given` that `call` takes."""
    return {name: value for name, value in given.items() if call in KEYWORDS[name].calls}


def conflicts(given: Mapping[str, Any]) -> Iterator[str]:
    """A sentence for each two of the valid keywords `given` that do not go together."""
    resolved = {**_DEFAULTS, **given}
    pair = (resolved["datapath_bitwidth_mode"], resolved["weight_bitwidth_mode"])
    mixbw = "mixbw" in pair
    if mixbw and pair not in _MIXBW_PAIRS:
        allowed = ", ".join(f"{datapath} with {weight}" for datapath, weight in sorted(_MIXBW_PAIRS))
        yield f"datapath_bitwidth_mode and weight_bitwidth_mode: found {pair[0]} with {pair[1]}; allowed: {allowed}"
    if "flops_ratio" in given and not mixbw:
        yield "flops_ratio: only with datapath_bitwidth_mode or weight_bitwidth_mode mixbw"
    if resolved["datapath_range_method"] != "mmse":
        for key in ("percentile", "outlier_factor"):
            if key in given:
                yield f"{key}: only with datapath_range_method mmse"
    percentage, percentage_16b = given.get("percentage", 0.0), given.get("percentage_16b", 1.0)
    if percentage > percentage_16b:
        yield f"percentage: found {percentage:g}; allowed: at most percentage_16b, {percentage_16b:g}"


def conflicts_with_platform(given: Mapping[str, Any], platform: str) -> Iterator[str]:
    """A sentence for each of the valid keywords `given` that the chip does not allow."""
    if platform == "520":
        for key in BITWIDTHS:
            if given.get(key) == "int16":
                yield f'{key}: found "int16", which platform 520 does not have'
    if platform == "720" and given.get("weight_bitwidth_mode") == "int4":
        yield 'weight_bitwidth_mode: found "int4", which platform 720 does not have'
    if platform != "730" and "quan_config" in given:
        yield f"quan_config: not on platform {platform}; allowed: on 730"
