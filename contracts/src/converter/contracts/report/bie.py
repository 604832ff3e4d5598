"""What the stage `bie` reports: the calibration, the quantisation, and how accurate its result is.

SNR [dB] = 10 log10(Σx² / Σ(x-y)²), x of the float model, y of the quantised one
"""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct, field

from converter.contracts.job import Sha256
from converter.contracts.report.stage import FileFacts, StageReport

Quality = Literal["good", "fair", "poor"]
"""`good` from 20 dB on, `fair` from 10 dB on, else `poor`."""


class Figures(Struct, frozen=True, kw_only=True):
    """The agreement of one tensor over `runs` runs. `snr_db` is null where it is no number; `exact` is why it may be.

    An element that is not finite in one of the two counts as `non_finite`. Where only the float model's is finite, the
    noise is infinite; otherwise it is left out.
    """

    snr_db: float | None
    cosine: float | None
    max_abs_error: float
    exact: bool
    non_finite: int
    runs: int


class LayerFigures(Figures, frozen=True, kw_only=True):
    """That of the result `tensor` of a node, errors of the layers before it included."""

    tensor: str
    node: str
    op: str


class OutputFigures(Struct, frozen=True, kw_only=True):
    """That of an output: `simulated` as the quantised graph is written, `kernels` with the CPU's integer kernels.

    A channel has collapsed if it varies in the float model and not in the quantised one; `collapsed` means the whole
    output. At most 32 of the channels are named.
    """

    name: str
    simulated: Figures
    kernels: Figures | None = None
    shape_mismatches: int = 0
    channels: int
    collapsed: bool
    collapsed_channels: tuple[int, ...]
    collapsed_channels_count: int


class Agreement(Struct, frozen=True, kw_only=True):
    """The part of the samples (0..1) on which both models' largest score is the same class."""

    kernels: float
    simulated: float


class Accuracy(Struct, frozen=True, kw_only=True):
    """The quantised model against the float one. `snr_db` and `verdict` are those of the worst output, simulated.

    `held_out`: whether the samples were kept out of the calibration. `layers` has the worst first.
    """

    method: str
    samples_count: int
    samples: tuple[str, ...] = ()
    held_out: bool
    snr_db: float | None
    verdict: Quality
    outputs: tuple[OutputFigures, ...]
    layers: tuple[LayerFigures, ...] = ()
    kernels_precise: bool | None = None
    top1_agreement: Agreement | None = None


class Rung(Struct, frozen=True, kw_only=True):
    """One step of the ladder: what it gave (null SNR: exact, or only noise is left), or why it `failed`."""

    step: str
    snr_db: float | None = None
    size_bytes: int | None = None
    failed: str | None = None


class Climb(Struct, frozen=True, kw_only=True):
    """The bit widths that were tried, in order, and which was `chosen` and `why`."""

    curve: tuple[Rung, ...]
    chosen: str
    why: str


class Pixels(Struct, frozen=True, kw_only=True):
    """How an image becomes the input: resized to `height` by `width`, then (x - mean) / scale, x in 0..255."""

    layout: Literal["NCHW", "NHWC"]
    height: int
    width: int
    channels: int
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    channel_order: Literal["rgb", "bgr"]
    resize: str


class SkippedFile(Struct, frozen=True, kw_only=True):
    """A reference file that could not be used."""

    name: str
    reason: str


class CalibrationSet(Struct, frozen=True, kw_only=True):
    """The reference data. `set_sha256` is over the sorted digests of its files, one a line; null for made-up data."""

    origin: Literal["reference_set", "synthetic"]
    count: int
    unique: int
    used: int
    used_names: tuple[str, ...]
    held_out: int
    set_sha256: Sha256 | None
    skipped: tuple[SkippedFile, ...]


class LiftedTensors(Struct, frozen=True, kw_only=True):
    """The tensors that have 16 bits where others have 8."""

    activations: tuple[str, ...]
    weights: tuple[str, ...]


class Quantisation(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How the model was quantised.

    The vendor's toolchain: `keywords` as they were given, and its `threads`. The reference toolchain: the resolved
    scheme, the step that was chosen, and what was left in floating point.
    """

    keywords: dict[str, Any] = {}
    threads: int | None = None
    format: str | None = None
    step: str | None = None
    activations: str | None = None
    weights: str | None = None
    model_inputs: str | None = None
    model_outputs: str | None = None
    range_method: str | None = None
    percentile: float | None = None
    min_snr_db: float | None = None
    ladder: str | None = None
    wide_share: float | None = None
    ignored_keywords: tuple[str, ...] = ()
    lifted_to_16_bits: LiftedTensors | None = None
    nodes: int | None = None
    quantize_linear_nodes: int | None = None
    dequantize_linear_nodes: int | None = None
    float_fallback_operators: dict[str, int] = {}
    float_fallback_nodes: tuple[str, ...] = ()


class SpeedEstimate(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the vendor's evaluator says of the chip; what it does not say is null. `cpu_nodes` are not in `fps`."""

    scope: str
    nodes: int
    cpu_nodes: tuple[str, ...]
    cpu_node_stated: str | None = None
    fps: float | None = None
    inference_ms: float | None = None
    read_bandwidth_gb_per_s: float | None = None
    write_bandwidth_gb_per_s: float | None = None
    gemm_bandwidth_gb_per_s: float | None = None
    bitwidths: dict[str, str] = {}


class BieReport(StageReport, frozen=True, kw_only=True):
    """The stage `bie`: how the model was quantised, with which data, and how well. Null: it could not be measured."""

    source: FileFacts
    result: FileFacts | None = None
    quantisation: Quantisation
    ladder: Climb | None = None
    preprocess: Pixels | None
    calibration: CalibrationSet
    accuracy: Accuracy | None
    verdict: Quality | None
    speed: SpeedEstimate | None = None
    layers_snr_db: dict[str, float] = field(default_factory=dict)
