from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from converter.contracts.job import Preprocess
from converter.toolchain import images
from converter.toolchain.images import Unreadable, decode, pixels
from converter.toolchain.models import TensorSpec
from converter.toolchain.preprocessing import resolve

_ORIENTATION = 0x0112


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "WEBP", "JPEG"])
def test_formats_are_told_by_content(kind: str):
    image = decode(encoded(Image.new("RGB", (8, 6), (200, 100, 50)), kind))
    assert (image.mode, image.size) == ("RGB", (8, 6))


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "PPM"])
def test_other_formats_are_refused(kind: str):
    with pytest.raises(Unreadable, match="not an image in one of the formats"):
        decode(encoded(Image.new("RGB", (8, 6)), kind))


@given(st.binary(max_size=200))
def test_any_bytes_are_refused(content: bytes):
    with pytest.raises(Unreadable):
        decode(content)


@given(st.data())
def test_a_damaged_image_is_read_or_refused_and_nothing_else(data: st.DataObject):
    content = bytearray(encoded(Image.effect_noise((16, 16), 50)))
    content[data.draw(st.integers(8, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        decode(bytes(content))
    except Unreadable as error:
        assert str(error)  # noqa: PT017 - an image is as good


def test_a_file_that_is_cut_off_is_refused():
    content = encoded(Image.effect_noise((64, 64), 50))
    with pytest.raises(Unreadable):
        decode(content[: len(content) // 2])


def test_size_is_checked_before_a_pixel_is_unpacked(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(images, "MOST_PIXELS", 15)
    with pytest.raises(Unreadable, match="4 x 4 pixels"):
        decode(encoded(Image.new("L", (4, 4))))


def test_sixteen_bits_are_scaled_not_cut():
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    decoded = np.asarray(decode(encoded(Image.fromarray(ramp))))
    np.testing.assert_array_equal(decoded, np.arange(256).reshape(16, 16))


def test_images_stand_upright():
    exif = Image.Exif()
    exif[_ORIENTATION] = 6  # to be turned by 90 degrees
    image = Image.new("RGB", (8, 4))
    assert decode(encoded(image, "JPEG", exif=exif)).size == (4, 8)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "LA", "CMYK"])
def test_every_mode_becomes_eight_bits(mode: str):
    kind = "JPEG" if mode == "CMYK" else "PNG"
    assert decode(encoded(Image.new(mode, (5, 5)), kind)).mode in {"RGB", "L"}


def test_a_palette_with_transparency_is_read():
    image = Image.new("P", (5, 5))
    image.putpalette(list(range(256)) * 3)
    assert decode(encoded(image, transparency=b"\x00\xff")).mode == "RGB"


@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_is_stretched_to_the_models_size(channels: int):
    spec = TensorSpec(name="x", dtype="float32", shape=(1, channels, 6, 9))
    preprocessing = resolve(Preprocess(preset="kneron"), spec)
    fitted = pixels(Image.new("RGB", (50, 20), (255, 255, 255)), preprocessing)
    assert (fitted.dtype, fitted.shape, fitted.min()) == (np.uint8, (6, 9, channels), 255)
