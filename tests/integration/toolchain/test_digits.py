"""The demo's model through the three stages: what the reports say is what anybody can compute from the artifacts."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import msgspec
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from PIL import Image

from converter.common.conversion import ConversionRefused
from converter.devstack.demo import DATA
from converter.toolchain import loader

from .conftest import Digits
from .workshop import Workshop


def a_session(model: bytes, *, simulated: bool) -> ort.InferenceSession:
    """Plain ONNX Runtime; nothing of the toolchain."""
    options = ort.SessionOptions()
    if simulated:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    else:
        options.add_session_config_entry("session.x64quantprecision", "1")
    return ort.InferenceSession(model, options)


def logits(model: bytes, names: list[str], *, simulated: bool = False) -> np.ndarray:
    session = a_session(model, simulated=simulated)
    answers = []
    for name in names:
        pixels = np.asarray(Image.open(DATA / "digits_calibration" / name).convert("RGB"), np.float32)
        answers.append(session.run(None, {"image": ((pixels - 128) / 256).transpose(2, 0, 1)[np.newaxis]})[0])
    return np.concatenate(answers).astype(np.float64)


def quantised_model(digits: Digits) -> bytes:
    with zipfile.ZipFile(digits.nef.artifact) as package:
        return package.read("model.onnx")


def test_the_model_becomes_static_and_smaller(digits: Digits):
    report = digits.onnx.report
    assert (report["source"]["nodes"], report["result"]["nodes"]) == (13, 9)
    assert report["result"]["inputs"][0]["shape"] == [1, 3, 32, 32]
    assert (report["source"]["opset"], report["result"]["opset"]) == (11, 17)
    assert not {"BatchNormalization", "Identity"} & set(report["result"]["operators"])
    assert sum(done["delta"] for done in report["passes"]) == 9 - 13
    assert report["source"]["macs"] is None, "its batch is open"
    # Three convolutions over 16 x 16, 8 x 8 and 4 x 4 outputs, and one matrix.
    assert report["result"]["macs"] == 256 * 16 * 27 + 64 * 32 * 144 + 16 * 64 * 288 + 640
    onnx.checker.check_model(str(digits.onnx.artifact), full_check=True)


def test_the_simplified_model_still_knows_the_digits(digits: Digits):
    names = [path.name for path in sorted((DATA / "digits_calibration").glob("*.png"))]
    before, after = logits(digits.source.read_bytes(), names), logits(digits.onnx.artifact.read_bytes(), names)
    np.testing.assert_allclose(before, after, atol=1e-4)
    truth = [int(name[0]) for name in names]
    assert np.mean(after.argmax(1) == truth) > 0.95


def test_quantisation_is_good_on_images_that_it_was_not_calibrated_with(digits: Digits):
    report = digits.bie.report
    calibration, accuracy = report["calibration"], report["accuracy"]
    assert (calibration["count"], calibration["used"], calibration["held_out"]) == (100, 80, 20)
    assert not set(calibration["used_names"]) & set(accuracy["samples"])
    assert accuracy["held_out"]
    assert accuracy["snr_db"] >= 20
    assert report["verdict"] == "good"
    assert report["quantisation"]["float_fallback_operators"] == {}
    assert digits.bie.warnings == ()


@pytest.mark.parametrize("how", ["kernels", "simulated"])
def test_snr_and_agreement_can_be_computed_again_with_plain_onnxruntime(digits: Digits, how: str):
    accuracy = digits.bie.report["accuracy"]
    x = logits(digits.onnx.artifact.read_bytes(), accuracy["samples"])
    y = logits(quantised_model(digits), accuracy["samples"], simulated=how == "simulated")
    figures = accuracy["outputs"][0][how]
    assert figures["snr_db"] == pytest.approx(10 * math.log10(np.sum(x**2) / np.sum((x - y) ** 2)), abs=0.01)
    assert figures["max_abs_error"] == pytest.approx(np.abs(x - y).max(), rel=1e-3)
    assert accuracy["top1_agreement"][how] == np.mean(x.argmax(1) == y.argmax(1))


def test_layers_are_listed_from_the_worst(digits: Digits):
    layers = digits.bie.report["accuracy"]["layers"]
    assert [layer["snr_db"] for layer in layers] == sorted(layer["snr_db"] for layer in layers)
    assert {layer["node"] for layer in layers} >= {"relu0", "relu1", "relu2"}


def test_the_calibration_set_is_identified_whatever_its_order(digits: Digits, digit_images: list[tuple[str, bytes]]):
    digests = sorted(hashlib.sha256(content).hexdigest() for _, content in digit_images)
    expected = hashlib.sha256("\n".join(digests).encode()).hexdigest()
    assert digits.bie.report["calibration"]["set_sha256"] == expected


def test_the_package_passes_its_own_test_and_runs(digits: Digits):
    assert digits.nef.report["self_test"]["passed"]
    artifact = loader.load(digits.nef.artifact)
    assert artifact.self_test().passed
    image = DATA / "digits_calibration" / "7_0182.png"
    answer = artifact.run_file(image.read_bytes())
    assert list(answer) == ["logits"]
    assert answer["logits"].argmax() == 7
    assert artifact.report["verdict"] == "good"


def test_the_golden_sample_is_an_image_of_the_held_out(digits: Digits):
    golden = loader.load(digits.nef.artifact).golden
    name = digits.bie.report["accuracy"]["samples"][0]
    expected = np.asarray(Image.open(DATA / "digits_calibration" / name).convert("RGB"))
    np.testing.assert_array_equal(golden.sample.raw["image"], expected)


def test_artifacts_say_that_they_are_not_for_the_hardware(digits: Digits):
    for conversion, suffix in ((digits.bie, ".ref.bie"), (digits.nef, ".ref.nef")):
        assert conversion.filename == f"digits_cnn{suffix}"
        assert conversion.artifact.read_bytes()[38:].startswith(conversion.media_type.encode())
        with zipfile.ZipFile(conversion.artifact) as package:
            manifest = json.loads(package.read("manifest.json"))
        assert "does not run on Kneron hardware" in manifest["about"]["notice"]
        assert "does not run on Kneron hardware" in conversion.report["notice"]
        assert manifest["about"]["target"] == {"platform": "720", "model_id": 32768, "version": "00a1"}
    assert digits.nef.toolchain.name == "reference"
    assert ort.__version__ in digits.nef.toolchain.version


def test_equal_inputs_give_equal_bytes_and_reports(digits: Digits, workshop: Workshop):
    workshop.filename = "digits_cnn.onnx"
    again = workshop.all(digits.source, digits.images)
    for first, second in zip((digits.onnx, digits.bie, digits.nef), again, strict=True):
        assert first.artifact.read_bytes() == second.artifact.read_bytes()
        reports = [{key: value for key, value in each.report.items() if key != "timings"} for each in (first, second)]
        assert json.dumps(reports[0], sort_keys=True) == json.dumps(reports[1], sort_keys=True)


def test_another_process_makes_equal_bytes(digits: Digits, tmp_path: Path):
    script = Path(__file__).with_name("another_process.py")
    # Another seed, as sets are in the order of their members' hashes.
    environment = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": str(script.parents[2])}
    subprocess.run(
        [sys.executable, script, tmp_path, digits.source, digits.images],
        env=environment,
        check=True,
        capture_output=True,
    )
    for stage, conversion in {"onnx": digits.onnx, "bie": digits.bie, "nef": digits.nef}.items():
        assert (tmp_path / stage).read_bytes() == conversion.artifact.read_bytes()


def test_reports_are_plain_json(digits: Digits):
    for conversion in (digits.onnx, digits.bie, digits.nef):
        plain = json.loads(json.dumps(conversion.report, allow_nan=False))
        assert plain == msgspec.json.decode(msgspec.json.encode(conversion.report))
        assert conversion.report["timings"]["peak_memory_bytes"] > 0
    assert digits.nef.report["timings"]["latency_ms"]["p50"] > 0


def test_nothing_but_the_artifact_is_left_behind(digits: Digits):
    for conversion in (digits.onnx, digits.bie, digits.nef):
        assert list(conversion.artifact.parent.iterdir()) == [conversion.artifact]


def test_progress_is_told_for_every_image_and_never_goes_back(digits: Digits, workshop: Workshop):
    workshop.bie(digits.onnx.artifact, digits.images)
    fractions = [fraction for fraction, _ in workshop.told]
    assert fractions == sorted(fractions)
    assert (fractions[0], fractions[-1]) == (0.0, 1.0)
    assert sum(activity.startswith("calibrating, sample") for _, activity in workshop.told) == 80


def test_the_log_has_a_line_with_figures_for_every_step(
    digits: Digits, workshop: Workshop, capfd: pytest.CaptureFixture[str]
):
    workshop.bie(digits.onnx.artifact, digits.images)
    written = capfd.readouterr()
    assert written.err == ""
    lines = written.out.splitlines()
    assert [line.split("]")[0] for line in lines] == [
        f"[{step}" for step in ("load", "calibrate", "quantise", "evaluate", "layers", "package")
    ]
    assert "80 samples" in lines[1]


def test_a_changed_artifact_is_called_corrupt(digits: Digits, workshop: Workshop):
    content = bytearray(digits.bie.artifact.read_bytes())
    content[len(content) // 2] ^= 1
    changed = workshop.root / "changed"
    changed.write_bytes(content)
    with pytest.raises(ConversionRefused) as refused:
        workshop.nef(changed)
    assert refused.value.code == "artifact_corrupt"


def test_images_with_other_sizes_and_formats_calibrate_too(
    digits: Digits, workshop: Workshop, digit_images: list[tuple[str, bytes]]
):
    files = []
    for index, (name, content) in enumerate(digit_images[:6]):
        image = Image.open(io.BytesIO(content)).convert(["RGB", "L", "RGB"][index % 3]).resize((64, 48))
        buffer = io.BytesIO()
        image.save(buffer, ["JPEG", "PNG", "WEBP"][index % 3])
        files.append((name, buffer.getvalue()))
    report = workshop.bie(digits.onnx.artifact, workshop.archive(files)).report
    assert report["calibration"]["used"] == 6
    assert report["calibration"]["skipped"] == []
