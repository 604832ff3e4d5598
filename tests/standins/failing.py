"""Failures on demand: STANDIN_FAILURE names one, and the call that it is of fails so."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

_DRIVERS_CHANNEL = 3
_WORDS = {
    "cpu_op": ("analysis", "undefined CPU op [KneronSwizzle] of node [head_3]"),
    "image_folder": ("analysis", "Cannot find the corresponding input image folder of model input images"),
    "rank": ("optimize", "Inferred shape and existing shape differ in rank: (2) vs (3)"),
    "radix": ("analysis", "quantize.cpp:88: Assertion `weight_radix_vect.size() == (size_t)o_c' failed."),
    "no_bie": ("compile", "compile only support models after fix point analysis"),
    "ir_version": ("optimize", "[ONNXRuntimeError] : Unsupported model IR version: 11, max supported IR version: 9"),
    "external": ("optimize", "External data for tensor conv1.weight is not loaded"),
    "hw": ("compile", "ERROR: hw not support, node: conv_17"),
    "compile": ("compile", "Failed to compile the model, see batch_compile.log"),
    "err_4": ("compile", "gen_config exited, err: 4"),
    "unheard_of": ("analysis", "something that nobody has told of"),
}


def fail_if_asked(call: str) -> None:
    """Fail in `call`, if that is asked for."""
    asked = os.environ.get("STANDIN_FAILURE", "")
    if asked in _WORDS and _WORDS[asked][0] == call:
        print(_WORDS[asked][1], file=sys.stderr, flush=True)
        raise RuntimeError("the flow failed")
    match asked, call:
        case "program_aborts", "analysis":
            subprocess.run(["/bin/sh", "-c", "kill -ABRT $$"], check=True)
        case "program_killed", "analysis":
            subprocess.run(["/bin/sh", "-c", "kill -KILL $$"], check=True)
        case "abort", "analysis":
            os.abort()
        case "killed", "analysis":
            os.kill(os.getpid(), signal.SIGKILL)
        case "hang", "optimize":
            signal.pause()
        case "exit", "compile":
            sys.exit(3)
        case "babble", "analysis":
            os.write(_DRIVERS_CHANNEL, b"not a word\n")
