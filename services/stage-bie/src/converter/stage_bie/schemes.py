"""How to quantise: the vendor's analysis keywords, as far as they mean something to this toolchain."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct
from msgspec.structs import replace

from converter.toolchain.accuracy import GOOD_DB

Method = Literal["MinMax", "Percentile", "LeastSquareError"]
Width = Literal["int8", "mixed", "int16"]
"""`mixed`: 8 bits, and 16 for the tensors that lose most, within a share of the model's work."""

WIDTHS: tuple[Width, ...] = ("int8", "mixed", "int16")
"""In the order in which a ladder climbs."""
_SHARES = {"mix light": 0.25, "mix balance": 0.5, "mixbw": 0.2}
"""The vendor says that "mix light" prefers 8 bits, "mix balance" 16, and that flops_ratio is 0.2 where absent (its
document centre, toolchain/manual_4_bie); the first two figures are this toolchain's own."""
_NARROW_PLATFORMS = frozenset({"520"})
"""Chips without 16-bit operation (the same page)."""
_DEFAULT_PERCENTAGE = 0.999
_UNDERSTOOD = frozenset({"datapath_range_method", "percentage", "min_snr_db", "ladder"})
_WIDTH_KEYWORDS = ("datapath_bitwidth_mode", "weight_bitwidth_mode")
_EDGE_KEYWORDS = ("model_in_bitwidth_mode", "model_out_bitwidth_mode")
_DONE_ANYWAY: dict[str, object] = {
    "quantize_mode": "default",
    "cpu_node_bitwidth_mode": "int8",
    "compiler_tiling": "default",
    "mode": 1,
    "optimize": 0,
}
"""Keywords and the value that asks for what this toolchain does without being asked."""


class Step(Struct, frozen=True, kw_only=True):
    """One combination of bit widths; `wide_inputs` and `wide_outputs` give the model's own inputs and outputs 16."""

    name: str
    activations: Width
    weights: Width
    wide_inputs: bool = False
    wide_outputs: bool = False

    @property
    def mixed(self) -> bool:
        """Whether it has to be found out which tensors get 16 bits."""
        return "mixed" in {self.activations, self.weights}

    def record(self) -> dict[str, Any]:
        """As the report states it."""
        return {
            "activations": _DESCRIBED["u" + self.activations] + ", asymmetric, per tensor",
            "weights": _DESCRIBED[self.weights] + ", symmetric, per channel",
            "model_inputs": "uint16" if self.wide_inputs else "as activations",
            "model_outputs": "uint16" if self.wide_outputs else "as activations",
        }


_DESCRIBED = {
    "uint8": "uint8",
    "umixed": "uint8 or uint16",
    "uint16": "uint16",
    "int8": "int8",
    "mixed": "int8 or int16",
    "int16": "int16",
}


class Scheme(Struct, frozen=True, kw_only=True):
    """A resolved way to quantise.

    `percentile` (0..100) is how much of a tensor's values its range covers. `steps` are tried in their order until one
    reaches `min_snr_db`; without a ladder there is one. `share` (0..1) of the model's work may get 16 bits in a mixed
    step.
    """

    method: Method = "MinMax"
    percentile: float | None = None
    min_snr_db: float | None = None
    ladder: bool = False
    steps: tuple[Step, ...] = (Step(name="int8", activations="int8", weights="int8"),)
    share: float = _SHARES["mix light"]
    ignored: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def record(self) -> dict[str, Any]:
        """The full configuration but for the bit widths, as the report states it."""
        return {
            "format": "QDQ",
            "range_method": self.method,
            "percentile": self.percentile,
            "min_snr_db": self.min_snr_db,
            "ladder": "auto" if self.ladder else None,
            "wide_share": self.share if any(step.mixed for step in self.steps) else None,
            "ignored_keywords": list(self.ignored),
        }


def resolve(keywords: dict[str, Any], platform: str = "720") -> Scheme:
    """The scheme that the vendor's `keywords` ask for; those without a meaning here are named in `ignored`.

    `datapath_range_method` "percentage" (with `percentage`, 0.999 where absent) takes the range that covers
    this part of all values; "mmse" the one of least square error. Without either, the range is from the smallest to
    the largest value.

    `ladder` "auto" begins at the bit widths asked for (8 where none are) and ends at 16; `min_snr_db` is then 20 where
    absent.
    """
    ladder = keywords.get("ladder") == "auto"
    minimum = keywords.get("min_snr_db", GOOD_DB if ladder else None)
    scheme = Scheme(min_snr_db=None if minimum is None else float(minimum), ladder=ladder, **_ranges(keywords))
    return _widened(scheme, keywords, platform)


def _ranges(keywords: dict[str, Any]) -> dict[str, Any]:
    range_method = keywords.get("datapath_range_method", "percentage" if "percentage" in keywords else None)
    if range_method == "mmse":
        return {"method": "LeastSquareError"}
    if range_method == "percentage":
        percentile = 100 * float(keywords.get("percentage", _DEFAULT_PERCENTAGE))
        return {"method": "Percentile", "percentile": round(percentile, 6)}
    return {}


def _widened(scheme: Scheme, keywords: dict[str, Any], platform: str) -> Scheme:
    """`scheme` with the steps that the bit-width keywords, the ladder and the chip leave."""
    asked = {name: keywords[name] for name in (*_WIDTH_KEYWORDS, *_EDGE_KEYWORDS) if keywords.get(name)}
    understood = _UNDERSTOOD | {name for name, mode in asked.items() if mode != "int4"}
    modes = [asked.get(name, "int8") for name in _WIDTH_KEYWORDS]
    activations, weights = (_width(mode) for mode in modes)
    steps: tuple[Step, ...] = (
        Step(
            name=activations if activations == weights else f"activations {activations}, weights {weights}",
            activations=activations,
            weights=weights,
            # The vendor ignores both with mixbw, which chooses for every tensor.
            wide_inputs="mixbw" not in modes and asked.get(_EDGE_KEYWORDS[0]) == "int16",
            wide_outputs="mixbw" not in modes and asked.get(_EDGE_KEYWORDS[1]) == "int16",
        ),
    )
    if scheme.ladder:
        higher = WIDTHS[max(map(WIDTHS.index, (activations, weights))) + 1 :]
        steps += tuple(replace(steps[0], name=width, activations=width, weights=width) for width in higher)
    shares = [_SHARES[mode] for mode in modes if mode in _SHARES]
    share = max(shares, default=scheme.share)
    if "mixbw" in modes:
        share = float(keywords.get("flops_ratio", share))
        understood |= {"flops_ratio"}
    warnings: tuple[str, ...] = ()
    narrow = Step(name="int8", activations="int8", weights="int8")
    if platform in _NARROW_PLATFORMS and steps != (narrow,):
        steps = (narrow,)
        warnings = (f"Quantised to 8 bits throughout: the chip {platform} has no 16-bit operation.",)
    ignored = tuple(
        sorted(name for name in keywords if name not in understood and keywords[name] != _DONE_ANYWAY.get(name))
    )
    return replace(scheme, steps=steps, share=share, ignored=ignored, warnings=warnings)


def _width(mode: str) -> Width:
    if mode in _SHARES:
        return "mixed"
    return "int16" if mode == "int16" else "int8"
