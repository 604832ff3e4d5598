"""Sessions of ONNX Runtime, all set up alike."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

import onnxruntime as ort

if TYPE_CHECKING:
    from pathlib import Path

THREADS = 2
_FATAL_ONLY = 4
"""Errors come as exceptions, with the same words."""
_PRECISE = "session.x64quantprecision"
_PROVIDERS = ["CPUExecutionProvider"]


class Execution(Enum):
    """How far the runtime may rewrite a graph before it runs it."""

    AS_WRITTEN = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    """Node by node. Quantised models compute in float and round where their graph says so, equally on every CPU."""
    FOLDED = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    """Constants folded and nodes fused that stay standard ONNX."""
    KERNELS = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    """Integer kernels where the CPU has them: as the model runs in production."""


def open_session(
    model: Path | bytes, execution: Execution = Execution.KERNELS, *, save_rewritten: Path | None = None
) -> ort.InferenceSession:
    """A session for `model` on the CPU; `save_rewritten` receives the graph as the runtime rewrote it.

    Raises:
        Exception: the runtime's own classes, which share no narrower ancestor; the model cannot be run.
    """
    source = model if isinstance(model, bytes) else str(model)
    options = _options(execution, save_rewritten)
    if execution is not Execution.KERNELS:
        return ort.InferenceSession(source, options, providers=_PROVIDERS)
    # Without it, 8-bit products saturate in 16 bits on x86-64 CPUs without VNNI, and the figures are wrong there.
    options.add_session_config_entry(_PRECISE, "1")
    try:
        return ort.InferenceSession(source, options, providers=_PROVIDERS)
    except Exception:  # noqa: BLE001 - onnxruntime 1.32 fails so on some models with Concat, which run without the option
        return ort.InferenceSession(source, _options(execution, save_rewritten), providers=_PROVIDERS)


def is_precise(session: ort.InferenceSession) -> bool:
    """Whether the session's integer kernels are exact on every CPU."""
    try:
        return bool(session.get_session_options().get_session_config_entry(_PRECISE) == "1")
    except RuntimeError:  # no such entry
        return False


def _options(execution: Execution, save_rewritten: Path | None) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.graph_optimization_level = execution.value
    options.intra_op_num_threads = THREADS
    options.log_severity_level = _FATAL_ONLY
    # Threads that spin between two runs would take the cores from the other conversions of this machine.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if save_rewritten is not None:
        options.optimized_model_filepath = str(save_rewritten)
    return options
