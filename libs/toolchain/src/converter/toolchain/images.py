"""Image files, read with care: they come from strangers.

Unreadable    the bytes are no image that can be used; the message says why
"""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from converter.toolchain.preprocessing import Preprocessing

FORMATS = ("JPEG", "PNG", "BMP", "WEBP")
MOST_PIXELS = 50_000_000
_FULL_16_BIT, _FULL_8_BIT = 65535, 255


class Unreadable(ValueError):
    """A file that cannot be used."""


def decode(content: bytes) -> Image.Image:
    """The image in `content`, its format told by the bytes: upright, in mode RGB or L, 8 bits for each channel.

    Raises:
        Unreadable: not one of `FORMATS`, cut off, or of more than `MOST_PIXELS`.
    """
    try:
        # Pillow warns of sizes that are checked here, and of colour profiles that do not matter here.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                # Pillow's own check comes too late: it raises only above twice its limit.
                if image.width * image.height > MOST_PIXELS:
                    raise Unreadable(f"{image.width} x {image.height} pixels are more than {MOST_PIXELS}")
                image.load()
                return _eight_bits(ImageOps.exif_transpose(image))
    except Unreadable:
        raise
    except UnidentifiedImageError:
        raise Unreadable(f"not an image in one of the formats {', '.join(FORMATS)}") from None
    except Exception as error:  # decoders raise whatever they come across
        raise Unreadable(f"{type(error).__name__}: {error}"[:200]) from error


def _eight_bits(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # Pillow's conversion of 16-bit modes cuts at 255 where it should divide.
        deep = np.asarray(image, np.float32)
        return Image.fromarray(np.rint(deep * _FULL_8_BIT / _FULL_16_BIT).clip(0, _FULL_8_BIT).astype(np.uint8))
    if image.mode in {"RGB", "L"}:
        return image
    if image.mode == "1":
        return image.convert("L")
    if "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def pixels(image: Image.Image, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """`image` stretched to the model's size: [height, width, channels], RGB order."""
    fitted = image.convert("L" if preprocessing.channels == 1 else "RGB").resize(
        (preprocessing.width, preprocessing.height), Image.Resampling.BILINEAR
    )
    return np.asarray(fitted, np.uint8).reshape(preprocessing.height, preprocessing.width, preprocessing.channels)
