"""Reports of a small job, whole and typed, for tests of what reads them."""

from __future__ import annotations

from converter.contracts.job import Stage
from converter.contracts.report import BieReport, NefReport, OnnxReport
from converter.contracts.report.bie import (
    Accuracy,
    CalibrationSet,
    Climb,
    Figures,
    LayerFigures,
    OutputFigures,
    Pixels,
    Quantisation,
    Rung,
    SkippedFile,
)
from converter.contracts.report.nef import SelfTest
from converter.contracts.report.onnx import (
    Difference,
    ModelFacts,
    OperatorTable,
    OperatorVerdict,
    OpsetConversion,
    Parity,
    Pass,
    TensorFacts,
)
from converter.contracts.report.stage import FileFacts, Obtained, ReportedToolchain, Run, Target, Timings

SHA = "a" * 64
TOOLCHAIN = ReportedToolchain(name="reference", version="1", libraries={"onnx": "1.23.2"})
RUN = Run(
    duration_s=1.25,
    peak_memory_bytes=90 << 20,
    isolation=Obtained(
        landlock_abi=6, tcp_denied=True, signals_scoped=True, seccomp=True, capabilities_dropped=True, uid=1000
    ),
)


def figures(snr_db: float | None) -> Figures:
    return Figures(snr_db=snr_db, cosine=0.9, max_abs_error=0.25, exact=snr_db is None, non_finite=0, runs=8)


def layer(tensor: str, snr_db: float | None) -> LayerFigures:
    return LayerFigures(
        tensor=tensor,
        node=f"{tensor}_node",
        op="Conv",
        snr_db=snr_db,
        cosine=0.9,
        max_abs_error=0.25,
        exact=snr_db is None,
        non_finite=0,
        runs=8,
    )


def model(nodes: int, *, name: str = "image") -> ModelFacts:
    return ModelFacts(
        size_bytes=2_000_000,
        sha256=SHA,
        ir_version=8,
        opset=17,
        producer="pytorch 2.9",
        nodes=nodes,
        operators={"Conv": nodes},
        parameters=500_000,
        weight_bytes=2_000_000,
        macs=70_000_000,
        inputs=(TensorFacts(name=name, dtype="float32", shape=("N", 3, None, 32)),),
        outputs=(TensorFacts(name="scores", dtype="float32", shape=(1, 10)),),
    )


ONNX = OnnxReport(
    stage=Stage.ONNX,
    toolchain=TOOLCHAIN,
    notice="Made by the reference toolchain.",
    warnings=("3 of 9 nodes have operators that the NPU of the 520 does not compute: Mul (3).",),
    timings=Timings(seconds={"load": 0.5}, peak_memory_bytes=80 << 20),
    run=RUN,
    source=model(13),
    result=model(9),
    operators=OperatorTable(
        platform="520",
        headline="3 of 9 nodes have operators that the NPU of the 520 does not compute: Mul (3).",
        operators=(
            OperatorVerdict(op="Mul", count=3, verdict="cpu-or-rewritten", reason="not on the NPU of the 520"),
            OperatorVerdict(op="Odd", count=1, verdict="unknown", reason="not in the vendor's table"),
            OperatorVerdict(op="Conv", count=5, verdict="npu", reason="on the NPU of the 520"),
        ),
        source={"title": "The vendor's table", "url": "https://doc.kneron.com/", "date": "2026-03-06"},
    ),
    opset_conversion=OpsetConversion(source=11, target=17, method="converted"),
    passes=(Pass(name="optimise", nodes_before=13, nodes_after=9, delta=-4),),
    parity=Parity(method="both run", runs=2, max_abs=1e-6, max_rel=1e-7, limits=Difference(max_abs=1e-5, max_rel=1e-3)),
)
BIE = BieReport(
    stage=Stage.BIE,
    toolchain=TOOLCHAIN,
    warnings=("Poor accuracy: the output 'scores' has 9.5 dB.",),
    timings=Timings(seconds={"calibrate": 2.0}, peak_memory_bytes=95 << 20, steps_seconds={"int8": 1.0, "int16": 2.0}),
    run=RUN,
    source=FileFacts(size_bytes=2_000_000, sha256=SHA),
    quantisation=Quantisation(
        step="int8",
        activations="uint8",
        weights="int8",
        range_method="MinMax",
        float_fallback_operators={"Sin": 1},
    ),
    ladder=Climb(
        curve=(
            Rung(step="int8", snr_db=9.5, size_bytes=600_000),
            Rung(step="mixed", failed="the opset cannot be raised"),
            Rung(step="int16", snr_db=41.0, size_bytes=1_100_000),
        ),
        chosen="int16",
        why="the narrowest step with at least 20 dB",
    ),
    preprocess=Pixels(
        layout="NCHW",
        height=32,
        width=32,
        channels=3,
        mean=(128.0,),
        scale=(256.0,),
        channel_order="rgb",
        resize="bilinear",
    ),
    calibration=CalibrationSet(
        origin="reference_set",
        count=101,
        unique=100,
        used=80,
        used_names=("0.png", "1.png"),
        held_out=20,
        set_sha256=SHA,
        skipped=(SkippedFile(name="broken.png", reason="not an image"),),
    ),
    accuracy=Accuracy(
        method="both run",
        samples_count=20,
        samples=("2.png",),
        held_out=True,
        snr_db=9.5,
        verdict="poor",
        outputs=(
            OutputFigures(
                name="scores",
                simulated=figures(9.5),
                kernels=figures(9.4),
                channels=10,
                collapsed=False,
                collapsed_channels=(4,),
                collapsed_channels_count=1,
            ),
        ),
        layers=(layer("c3", 9.5), layer("c2", 14.0), layer("c1", 31.0), layer("flat", None)),
    ),
    verdict="poor",
)
NEF = NefReport(
    stage=Stage.NEF,
    toolchain=TOOLCHAIN,
    target=Target(platform="520", model_id=40001, version="00a1"),
    warnings=(),
    timings=Timings(seconds={"package": 0.1}, peak_memory_bytes=85 << 20),
    run=RUN,
    bie_sha256=SHA,
    self_test=SelfTest(
        process="its own",
        tolerance=1e-5,
        passed=True,
        as_written={"scores": figures(None)},
        kernels={"scores": figures(60.0)},
    ),
)
