"""Confines itself on a kernel that has no Landlock, or no seccomp filters either, and prints what it obtained.

python older_kernel.py WORKDIR landlock [seccomp]      what the kernel does not have
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct
import sys
from pathlib import Path

import msgspec

from converter.common.isolation import Confinement, Limits, confine

_LANDLOCK_CREATE_RULESET, _PRCTL = 444, {"x86_64": 157, "aarch64": 167}[platform.machine()]
_SET_NO_NEW_PRIVS, _SET_SECCOMP, _FILTER = 38, 22, 2
_LOAD, _JUMP_EQUAL, _RETURN = 0x20, 0x15, 0x06
_NUMBER, _FIRST_ARGUMENT = 0, 16
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000


def take_away(*lacking: str) -> None:
    """Has the kernel answer as one that never had it."""
    program = []
    if "landlock" in lacking:
        program += [
            (_LOAD, 0, 0, _NUMBER),
            (_JUMP_EQUAL, 0, 1, _LANDLOCK_CREATE_RULESET),
            (_RETURN, 0, 0, _ERRNO | errno.ENOSYS),
        ]
    if "seccomp" in lacking:
        program += [
            (_LOAD, 0, 0, _NUMBER),
            (_JUMP_EQUAL, 0, 3, _PRCTL),
            (_LOAD, 0, 0, _FIRST_ARGUMENT),
            (_JUMP_EQUAL, 0, 1, _SET_SECCOMP),
            (_RETURN, 0, 0, _ERRNO | errno.EINVAL),
        ]
    program.append((_RETURN, 0, 0, _ALLOW))
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in program))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    header = struct.pack("@HP", len(program), ctypes.addressof(code))
    if libc.prctl(_SET_SECCOMP, _FILTER, header, 0, 0):
        raise OSError(ctypes.get_errno(), "seccomp")


take_away(*sys.argv[2:])
obtained = confine.confine(Limits(timeout_s=10, memory_mb=1000), Path(sys.argv[1]), Confinement())
sys.stdout.write(msgspec.json.encode(obtained).decode())
