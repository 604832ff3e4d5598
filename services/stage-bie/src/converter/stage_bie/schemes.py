"""How to quantise: the vendor's analysis keywords, as far as they mean something to this toolchain."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

Method = Literal["MinMax", "Percentile", "Entropy"]

_DEFAULT_PERCENTAGE = 0.999
_METHOD_KEYWORDS = frozenset({"datapath_range_method", "percentage", "min_snr_db"})
_DONE_ANYWAY: dict[str, object] = {
    "quantize_mode": "default",
    "datapath_bitwidth_mode": "int8",
    "weight_bitwidth_mode": "int8",
    "model_in_bitwidth_mode": "int8",
    "model_out_bitwidth_mode": "int8",
    "compiler_tiling": "default",
    "mode": 1,
    "optimize": 0,
}
"""Keywords and the value that asks for what this toolchain does without being asked."""


class Scheme(Struct, frozen=True, kw_only=True):
    """A resolved way to quantise. `percentile` (0..100) is how much of a tensor's values its range covers."""

    method: Method = "MinMax"
    percentile: float | None = None
    min_snr_db: float | None = None
    ignored: tuple[str, ...] = ()

    def record(self) -> dict[str, Any]:
        """The full configuration, as the report states it."""
        return {
            "format": "QDQ",
            "activations": "uint8, asymmetric, per tensor",
            "weights": "int8, symmetric, per channel",
            "range_method": self.method,
            "percentile": self.percentile,
            "min_snr_db": self.min_snr_db,
            "ignored_keywords": list(self.ignored),
        }


def resolve(keywords: dict[str, Any]) -> Scheme:
    """The scheme that the vendor's `keywords` ask for; those without a meaning here are named in `ignored`.

    `datapath_range_method` "percentage" (with `percentage`, 0.999 where absent) takes the range that covers
    this part of all values; "mmse" the one of least information loss, which stands in for the vendor's least square
    error. Without either, the range is from the smallest to the largest value.
    """
    ignored = tuple(
        sorted(name for name in keywords if name not in _METHOD_KEYWORDS and keywords[name] != _DONE_ANYWAY.get(name))
    )
    minimum = keywords.get("min_snr_db")
    scheme = Scheme(min_snr_db=None if minimum is None else float(minimum), ignored=ignored)
    range_method = keywords.get("datapath_range_method", "percentage" if "percentage" in keywords else None)
    if range_method == "mmse":
        return _with(scheme, "Entropy", None)
    if range_method == "percentage":
        percentile = 100 * float(keywords.get("percentage", _DEFAULT_PERCENTAGE))
        return _with(scheme, "Percentile", round(percentile, 6))
    return scheme


def _with(scheme: Scheme, method: Method, percentile: float | None) -> Scheme:
    return Scheme(method=method, percentile=percentile, min_snr_db=scheme.min_snr_db, ignored=scheme.ignored)
