"""How an image becomes what a model is fed: the presets of the vendor's toolchain, resolved for one input."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from msgspec import Struct

from converter.common.conversion import ConversionRefused

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from converter.contracts.job import Preprocess
    from converter.toolchain.models import TensorSpec

ChannelOrder = Literal["rgb", "bgr"]
_RANK, _COLOURS = 4, 3


class Preset(Struct, frozen=True):
    """(x - mean) / scale, x in 0..255; three numbers stand in the order of `channel_order`."""

    mean: tuple[float, ...] = (0.0,)
    scale: tuple[float, ...] = (1.0,)
    channel_order: ChannelOrder = "rgb"


PRESETS: dict[str, Preset] = {
    "kneron": Preset((128.0,), (256.0,)),
    "tensorflow": Preset((127.5,), (127.5,)),
    "yolo": Preset((0.0,), (255.0,)),
    "pytorch": Preset((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
    "caffe": Preset((103.939, 116.779, 123.68), (1.0,), "bgr"),
    "none": Preset(),
}
"""x/256 - 0.5; x/127.5 - 1; x/255; (x/255 - mean)/std of ImageNet; BGR minus ImageNet's mean; x."""


class Preprocessing(Struct, frozen=True, kw_only=True):
    """All that happens to an image after it is decoded: it is stretched to height by width, then normalised.

    `mean` and `scale` have one number, or one for each channel in `channel_order`. A model with one channel is fed the
    image's luminance (ITU-R 601-2).
    """

    layout: Literal["NCHW", "NHWC"]
    height: int
    width: int
    channels: Literal[1, 3]
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    channel_order: ChannelOrder
    resize: Literal["bilinear"] = "bilinear"

    def normalise(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """What the model is fed for `pixels` [height, width, channels] in RGB order: one batch, in the layout."""
        ordered = pixels[:, :, ::-1] if self.channel_order == "bgr" else pixels
        values = (ordered.astype(np.float32) - np.array(self.mean, np.float32)) / np.array(self.scale, np.float32)
        batch = values.transpose(2, 0, 1) if self.layout == "NCHW" else values
        return np.ascontiguousarray(batch[np.newaxis], np.float32)

    def record(self) -> dict[str, Any]:
        """As reports and manifests write it."""
        return {
            "layout": self.layout,
            "height": self.height,
            "width": self.width,
            "channels": self.channels,
            "mean": list(self.mean),
            "scale": list(self.scale),
            "channel_order": self.channel_order,
            "resize": self.resize,
        }


def fitted(wanted: Preprocess, inputs: Sequence[TensorSpec]) -> Preprocessing | None:
    """`wanted` for a model with `inputs`; none where it does not take one image.

    Raises:
        ConversionRefused: see `resolve`.
    """
    return resolve(wanted, inputs[0]) if len(inputs) == 1 and takes_images(inputs[0]) else None


def takes_images(spec: TensorSpec) -> bool:
    """Whether the input has the type and shape of one image: float32, [1, C, H, W] or [1, H, W, C], C 1 or 3."""
    return spec.dtype == "float32" and len(spec.shape) == _RANK and spec.static and _layout(spec) is not None


def _layout(spec: TensorSpec) -> Literal["NCHW", "NHWC"] | None:
    batch, second, _, last = spec.dims
    if batch != 1:
        return None
    return "NCHW" if second in {1, _COLOURS} else "NHWC" if last in {1, _COLOURS} else None


def resolve(wanted: Preprocess, spec: TensorSpec) -> Preprocessing:
    """`wanted` for the model's input `spec`, which takes images.

    Raises:
        ConversionRefused: `calibration_mismatch`: `wanted` has not as many numbers as the input has channels.
    """
    layout = _layout(spec)
    if layout is None:
        raise ValueError(f"{spec} takes no images")
    first, second, third = spec.dims[1:]
    channels, height, width = (first, second, third) if layout == "NCHW" else (third, first, second)
    preset = PRESETS[wanted.preset or "none"]
    order = wanted.channel_order or preset.channel_order
    # A preset's numbers belong to colours: read in the other order, they are turned round with them.
    step = 1 if order == preset.channel_order else -1
    mean, scale = wanted.mean or preset.mean[::step], wanted.scale or preset.scale[::step]
    for name, numbers in (("mean", mean), ("scale", scale)):
        if len(numbers) not in {1, channels}:
            raise ConversionRefused(
                "calibration_mismatch",
                f"preprocess has {len(numbers)} numbers for {name}, the input {spec.name!r} has {channels} channel(s)",
                hint="Give mean and scale as one number, or as one for each channel of the model's input.",
            )
    if not all(scale):
        raise ConversionRefused("calibration_mismatch", "preprocess has a scale of 0")
    return Preprocessing(
        layout=layout,
        height=height,
        width=width,
        channels=1 if channels == 1 else 3,
        mean=mean,
        scale=scale,
        channel_order=order,
    )
