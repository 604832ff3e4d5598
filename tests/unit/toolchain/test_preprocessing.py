from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from msgspec import convert

from converter.common.conversion import ConversionRefused
from converter.contracts.job import Preprocess
from converter.toolchain.models import TensorSpec
from converter.toolchain.preprocessing import PRESETS, Preprocessing, resolve, takes_images

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
# As the vendor's manual writes them; x is RGB.
FORMULAS = {
    "kneron": lambda x: x / 256 - 0.5,
    "tensorflow": lambda x: x / 127.5 - 1,
    "yolo": lambda x: x / 255,
    "pytorch": lambda x: (x / 255 - MEAN) / STD,
    "caffe": lambda x: x[:, :, ::-1] - np.array([103.939, 116.779, 123.68]),
    "none": lambda x: x,
}


def an_input(*shape: int, dtype: str = "float32") -> TensorSpec:
    return TensorSpec(name="image", dtype=dtype, shape=shape)


NCHW, NHWC, GREY = an_input(1, 3, 4, 5), an_input(1, 4, 5, 3), an_input(1, 1, 4, 5)
PIXELS = hnp.arrays(np.uint8, (4, 5, 3))


def test_every_preset_has_a_formula_here():
    assert set(FORMULAS) == set(PRESETS)


@given(PIXELS, st.sampled_from(sorted(FORMULAS)))
def test_presets_compute_what_the_vendor_says(pixels: np.ndarray, preset: str):
    expected = FORMULAS[preset](pixels.astype(np.float64))
    batch = resolve(convert({"preset": preset}, Preprocess), NCHW).normalise(pixels)
    assert (batch.dtype, batch.shape) == (np.float32, (1, 3, 4, 5))
    np.testing.assert_allclose(batch[0].transpose(1, 2, 0), expected, atol=1e-4)


@given(PIXELS)
def test_both_layouts_hold_the_same_values(pixels: np.ndarray):
    first, last = (resolve(Preprocess(preset="pytorch"), spec).normalise(pixels) for spec in (NCHW, NHWC))
    np.testing.assert_array_equal(first.transpose(0, 2, 3, 1), last)


@given(PIXELS)
def test_the_numbers_of_a_preset_follow_their_colours(pixels: np.ndarray):
    rgb = resolve(Preprocess(preset="pytorch"), NCHW).normalise(pixels)
    bgr = resolve(Preprocess(preset="pytorch", channel_order="bgr"), NCHW).normalise(pixels)
    np.testing.assert_array_equal(rgb[:, ::-1], bgr)


def test_own_numbers_stand_in_the_order_of_the_channels():
    pixels = np.full((4, 5, 3), (10, 20, 30), np.uint8)
    preprocess = Preprocess(mean=(30.0, 10.0, 10.0), scale=(1.0, 2.0, 4.0), channel_order="bgr")
    batch = resolve(preprocess, NCHW).normalise(pixels)
    assert batch[0, :, 0, 0].tolist() == [0.0, 5.0, 0.0]


def test_one_channel_takes_one_number():
    assert resolve(Preprocess(mean=(128.0,), scale=(256.0,)), GREY).channels == 1
    with pytest.raises(ConversionRefused, match="3 numbers for mean") as refused:
        resolve(Preprocess(preset="pytorch"), GREY)
    assert refused.value.code == "calibration_mismatch"


def test_a_scale_of_zero_is_refused():
    with pytest.raises(ConversionRefused, match="scale of 0"):
        resolve(Preprocess(scale=(1.0, 0.0, 1.0)), NCHW)


@pytest.mark.parametrize(
    ("spec", "takes"),
    [
        (NCHW, True),
        (NHWC, True),
        (GREY, True),
        (an_input(2, 3, 4, 5), False),
        (an_input(1, 7, 4, 5), False),
        (an_input(1, 3, 4), False),
        (an_input(1, 3, 4, 5, dtype="int64"), False),
    ],
)
def test_which_inputs_take_images(spec: TensorSpec, takes: bool):  # noqa: FBT001 - a parameter of the table above
    assert takes_images(spec) is takes


@pytest.mark.parametrize("spec", [NCHW, NHWC, GREY])
def test_a_record_is_read_back(spec: TensorSpec):
    preprocessing = resolve(Preprocess(preset="kneron"), spec)
    assert convert(preprocessing.record(), Preprocessing) == preprocessing
