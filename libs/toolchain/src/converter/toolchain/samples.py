"""What a model is fed when it is calibrated, compared or tried: reference data of the client, or made-up data.

The client's reference set is one ZIP; its members are images (by content, not by name), or for models that take no
images `.npy` arrays (one input) and `.npz` archives (arrays by input name).
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from msgspec import Struct

from converter.common.conversion import ConversionRefused
from converter.toolchain.images import Unreadable, decode, pixels

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from converter.toolchain.models import TensorSpec
    from converter.toolchain.preprocessing import Preprocessing

Feeds = dict[str, "NDArray[Any]"]

MOST_MEMBERS = 10_000
MOST_MEMBER_BYTES = 64 << 20
_NPY, _ZIP = b"\x93NUMPY", b"PK\x03\x04"
_SHOWN_NAME = 200


class Sample(Struct, frozen=True, kw_only=True):
    """One run's data. `raw` is what preprocessing starts from: uint8 pixels [H, W, C], or the arrays themselves."""

    raw: dict[str, Any]
    preprocessing: Preprocessing | None

    @property
    def feeds(self) -> Feeds:
        """The arrays that the model is fed, by input."""
        if self.preprocessing is None:
            return dict(self.raw)
        return {name: self.preprocessing.normalise(array) for name, array in self.raw.items()}


class Member(Struct, frozen=True, kw_only=True):
    """One file of a reference set, not looked into yet."""

    index: int
    name: str
    sha256: str


class Skipped(Struct, frozen=True, kw_only=True):
    """One file of a reference set that could not be used, and why."""

    index: int
    name: str
    reason: str


class ReferenceSet:
    """The client's reference data, read one member at a time. A context manager.

    Raises:
        ConversionRefused: `calibration_unreadable`: the file is no ZIP archive, or has too many members.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._archive = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
            raise ConversionRefused(
                "calibration_unreadable", "the reference set is not a ZIP archive", evidence=str(error)[:200]
            ) from error
        self._entries = [entry for entry in self._archive.infolist() if not entry.is_dir()]
        if len(self._entries) > MOST_MEMBERS:
            self._archive.close()
            raise ConversionRefused(
                "calibration_unreadable", f"the reference set has {len(self._entries)} files, at most {MOST_MEMBERS}"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._archive.close()

    def __len__(self) -> int:
        return len(self._entries)

    def name(self, index: int) -> str:
        """A label for people; it is never used as a path."""
        return self._entries[index].filename[:_SHOWN_NAME]

    def read(self, index: int) -> bytes:
        """The content of the member `index`.

        Raises:
            Unreadable: it is damaged, encrypted, or bigger than `MOST_MEMBER_BYTES`.
        """
        try:
            # The bound counts what comes out: a directory can lie about sizes.
            with self._archive.open(self._entries[index]) as member:
                content = member.read(MOST_MEMBER_BYTES + 1)
        except Exception as error:  # zipfile and zlib raise many classes for damaged members
            raise Unreadable(f"damaged in the archive: {error}"[:200]) from error
        if len(content) > MOST_MEMBER_BYTES:
            raise Unreadable(f"more than {MOST_MEMBER_BYTES} bytes")
        return content

    def members(self) -> Iterator[Member | Skipped]:
        """Every member with its digest, in order, or why it cannot be read."""
        for index in range(len(self)):
            try:
                digest = hashlib.sha256(self.read(index)).hexdigest()
            except Unreadable as error:
                yield Skipped(index=index, name=self.name(index), reason=str(error))
            else:
                yield Member(index=index, name=self.name(index), sha256=digest)


def sample_of(content: bytes, inputs: Sequence[TensorSpec], preprocessing: Preprocessing | None) -> Sample:
    """The data in one file for a model with `inputs`; `preprocessing` is that of the only input, if it takes images.

    Raises:
        Unreadable: the file is damaged or of no known format.
        ConversionRefused: `calibration_mismatch`: it is readable, but not for these inputs.
    """
    if content.startswith((_NPY, _ZIP)):
        return Sample(raw=_fitted(_arrays(content, inputs), inputs), preprocessing=None)
    image = decode(content)
    if preprocessing is None:
        described = ", ".join(f"{spec.name} {spec.dtype}{list(spec.shape)}" for spec in inputs)
        raise ConversionRefused(
            "calibration_mismatch",
            f"the reference set has images, the model's inputs take none: {described}",
            hint="Send .npz files whose arrays are named like the model's inputs, or no reference data at all.",
        )
    return Sample(raw={inputs[0].name: pixels(image, preprocessing)}, preprocessing=preprocessing)


def _arrays(content: bytes, inputs: Sequence[TensorSpec]) -> Feeds:
    """The arrays of a .npy or .npz file, nothing of it executed and no more than `MOST_MEMBER_BYTES` unpacked."""
    try:
        if content.startswith(_NPY):
            return {inputs[0].name: np.load(io.BytesIO(content), allow_pickle=False)}
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > MOST_MEMBER_BYTES:
                raise Unreadable(f"its arrays have more than {MOST_MEMBER_BYTES} bytes")
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except Unreadable:
        raise
    except Exception as error:  # numpy and zipfile raise many classes for damaged files
        raise Unreadable(f"not a NumPy file: {error}"[:200]) from error


def _fitted(arrays: Feeds, inputs: Sequence[TensorSpec]) -> Feeds:
    """`arrays` as the model wants them; a missing batch axis of 1 is added."""
    names = [spec.name for spec in inputs]
    if sorted(arrays) != sorted(names):
        raise ConversionRefused(
            "calibration_mismatch",
            f"the reference arrays are {', '.join(sorted(arrays))}; the model's inputs are {', '.join(names)}",
        )
    fitted = {}
    for spec in inputs:
        array = arrays[spec.name]
        if array.shape not in {spec.dims, spec.dims[1:]} or array.dtype.kind not in "fiub":
            raise ConversionRefused(
                "calibration_mismatch",
                f"the reference array for {spec.name!r} is {array.dtype}{list(array.shape)}, "
                f"the model's input is {spec.dtype}{list(spec.shape)}",
            )
        fitted[spec.name] = np.ascontiguousarray(array.reshape(spec.dims).astype(spec.dtype))
    return fitted


def synthetic(inputs: Sequence[TensorSpec], preprocessing: Preprocessing | None, seed: int) -> Sample:
    """Made-up data, the same for the same `seed`.

    Images are smooth noise over the full range of colours. Other floating inputs are drawn from the normal
    distribution; integers are 0 or 1, which any table of indices has.
    """
    random = np.random.default_rng(seed)
    if preprocessing is not None:
        return Sample(raw={inputs[0].name: _smooth_noise(preprocessing, random)}, preprocessing=preprocessing)
    return Sample(raw={spec.name: _noise(spec, random) for spec in inputs}, preprocessing=None)


def _noise(spec: TensorSpec, random: np.random.Generator) -> NDArray[Any]:
    if spec.dtype.startswith("float"):
        return random.standard_normal(spec.dims, np.float32).astype(spec.dtype)
    return random.integers(0, 2, spec.dims).astype(spec.dtype)


def _smooth_noise(preprocessing: Preprocessing, random: np.random.Generator) -> NDArray[np.uint8]:
    """Patches of a few pixels: noise of single pixels averages out in the first layer, and no image looks like it."""
    height, width = preprocessing.height, preprocessing.width
    patch = max(1, min(height, width) // 8)
    rows, columns = -(-height // patch), -(-width // patch)
    coarse = random.integers(0, 256, (rows, columns, preprocessing.channels), np.uint8)
    return coarse.repeat(patch, axis=0).repeat(patch, axis=1)[:height, :width]
