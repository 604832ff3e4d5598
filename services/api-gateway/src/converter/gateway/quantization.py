"""The vendor's analysis keywords, as far as a client may set them, and what each chip allows of them.

The table is that of the vendor's toolchain manual (`km.analysis`), without the keywords that name files or inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from converter.gateway.written import Bad, decoded_object, number, shown

MIN_SNR_DB_MAX = 120.0
TEXT_MAX_CHARS = 16 * 1024
"""The keywords travel in every event of the job, which must stay small."""

_DATAPATH = ("int8", "int16", "mix balance", "mix light", "mixbw")
_PLAIN = ("int8", "int16")
_MIXBW_PAIRS = {("mixbw", "int16"), ("int16", "mixbw"), ("mixbw", "mixbw")}
"""(datapath, weight): mixbw goes together with nothing else."""
_BITWIDTHS = (
    "datapath_bitwidth_mode",
    "weight_bitwidth_mode",
    "model_in_bitwidth_mode",
    "model_out_bitwidth_mode",
    "cpu_node_bitwidth_mode",
)
_DEFAULTS = {"datapath_range_method": "percentage"} | dict.fromkeys(_BITWIDTHS, "int8")
"""The vendor's, for the rules that tie keywords together; they are not written into a job."""


def _choice(*allowed: str | int) -> Callable[[str, object], object]:
    def check(key: str, value: object) -> object:
        if not any(type(value) is type(choice) and value == choice for choice in allowed):
            raise Bad(f"{key}: found {shown(value)}; allowed: {', '.join(str(choice) for choice in allowed)}")
        return value

    return check


def _between(least: float, most: float) -> Callable[[str, object], object]:
    def check(key: str, value: object) -> float:
        read = number(key, value)
        if not least <= read <= most:
            raise Bad(f"{key}: found {shown(value)}; allowed: {least:g} to {most:g}")
        return read

    return check


def _node_bitwidths(key: str, value: object) -> object:
    if not isinstance(value, dict):
        raise Bad(f"{key}: found {shown(value)}; allowed: an object, bit widths by node name")
    return value


_KEYWORDS: dict[str, Callable[[str, object], object]] = {
    "mode": _choice(1, 2, 3),
    "quantize_mode": _choice("default", "post_sigmoid"),
    "datapath_range_method": _choice("percentage", "mmse"),
    "percentage": _between(0.999, 1.0),
    "percentage_16b": _between(0.999, 1.0),
    "percentile": _between(0.0, 1.0),
    "outlier_factor": _between(0.0, 100.0),
    "datapath_bitwidth_mode": _choice(*_DATAPATH),
    "weight_bitwidth_mode": _choice(*_DATAPATH, "int4"),
    "model_in_bitwidth_mode": _choice(*_PLAIN),
    "model_out_bitwidth_mode": _choice(*_PLAIN),
    "cpu_node_bitwidth_mode": _choice(*_PLAIN),
    "flops_ratio": _between(0.0, 1.0),
    "quan_config": _node_bitwidths,
    "compiler_tiling": _choice("default", "deep_search"),
    "optimize": _choice(0, 1, 2, 3, 4),
    "min_snr_db": _between(0.0, MIN_SNR_DB_MAX),
}


def check_quantization(text: str) -> dict[str, Any]:
    """The keywords in the JSON object `text`, as given; what is left out is the toolchain's choice.

    Raises:
        Bad: it is no object, a keyword or a value is unknown, or two of them do not go together.
    """
    if len(text) > TEXT_MAX_CHARS:
        raise Bad(f"found {len(text)} characters; allowed: at most {TEXT_MAX_CHARS}")
    given = decoded_object(text)
    problems = [f"unknown key {shown(key)}; allowed: {', '.join(_KEYWORDS)}" for key in given if key not in _KEYWORDS]
    for key, value in given.items():
        try:
            _KEYWORDS.get(key, _as_it_is)(key, value)
        except Bad as bad:
            problems += bad.messages
    problems = problems or list(_conflicts(given))
    if problems:
        raise Bad(*problems)
    return given


def check_with_platform(given: dict[str, Any], platform: str) -> Sequence[str]:
    """What the chip does not allow of valid keywords."""
    problems: list[str] = []
    if platform == "520":
        problems += [
            f'{key}: found "int16", which platform 520 does not have' for key in _BITWIDTHS if given.get(key) == "int16"
        ]
    if platform == "720" and given.get("weight_bitwidth_mode") == "int4":
        problems.append('weight_bitwidth_mode: found "int4", which platform 720 does not have')
    if platform != "730" and "quan_config" in given:
        problems.append(f"quan_config: not on platform {platform}; allowed: on 730")
    return problems


def _as_it_is(_: str, value: object) -> object:
    return value


def _conflicts(given: dict[str, Any]) -> Sequence[str]:
    problems: list[str] = []
    resolved = _DEFAULTS | given
    pair = (resolved["datapath_bitwidth_mode"], resolved["weight_bitwidth_mode"])
    mixbw = "mixbw" in pair
    if mixbw and pair not in _MIXBW_PAIRS:
        allowed = ", ".join(f"{datapath} with {weight}" for datapath, weight in sorted(_MIXBW_PAIRS))
        problems.append(
            f"datapath_bitwidth_mode and weight_bitwidth_mode: found {pair[0]} with {pair[1]}; allowed: {allowed}"
        )
    if "flops_ratio" in given and not mixbw:
        problems.append("flops_ratio: only with datapath_bitwidth_mode or weight_bitwidth_mode mixbw")
    if resolved["datapath_range_method"] != "mmse":
        problems += [
            f"{key}: only with datapath_range_method mmse" for key in ("percentile", "outlier_factor") if key in given
        ]
    percentage, percentage_16b = given.get("percentage", 0.0), given.get("percentage_16b", 1.0)
    if percentage > percentage_16b:
        problems.append(f"percentage: found {percentage:g}; allowed: at most percentage_16b, {percentage_16b:g}")
    return problems
