"""What an artifact answers to one image, as `converter run` tells it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from converter.toolchain import loader

_BEST = 5


def run(artifact: Path, image: Path) -> dict[str, Any]:
    """The outputs of a .ref.bie or .ref.nef for an image, a .npy or a .npz file; JSON.

    Raises:
        OSError: one of them cannot be read.
        Corrupt: the artifact is none, or damaged.
        Unreadable: the image is none, or does not fit the model.
    """
    answers = loader.load(artifact).run_file(image.read_bytes())
    return {"outputs": [_answer(name, array) for name, array in answers.items()]}


def _answer(name: str, array: np.ndarray) -> dict[str, Any]:
    values = np.nan_to_num(array.astype(np.float64).ravel())
    scores = array.ndim <= 2 and array.shape[:-1] in {(), (1,)} and values.size > 1  # noqa: PLR2004 - [C] or [1, C]
    best: Iterable[int] = np.argsort(-values, kind="stable")[:_BEST] if scores else ()
    return {
        "name": name,
        "dtype": str(array.dtype),
        "shape": list(array.shape),
        "min": float(values.min(initial=np.inf)) if values.size else None,
        "max": float(values.max(initial=-np.inf)) if values.size else None,
        "mean": float(values.mean()) if values.size else None,
        "best": [{"index": int(index), "value": float(values[index])} for index in best],
    }
