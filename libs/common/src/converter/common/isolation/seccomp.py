"""seccomp: which system calls a converter may make. Written in classic BPF, so that no library is needed.

Numbers: the kernel's syscall tables of x86-64 and (generic) AArch64. Everything that a converter has no use for and
that reaches out of its process is answered with EPERM.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from typing import NamedTuple

_ALLOW = 0x7FFF0000
_DENY = 0x00050001  # SECCOMP_RET_ERRNO | EPERM
_UNKNOWN = 0x00050026  # SECCOMP_RET_ERRNO | ENOSYS
_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data
_X32_BIT = 0x40000000  # the same calls under other numbers
_NEW_NAMESPACES = 0x7E020000  # every CLONE_NEW* flag of clone
_SET_SECCOMP, _MODE_FILTER = 22, 2  # prctl


class _Calls(NamedTuple):
    audit: int
    clone: int
    clone3: int
    sockets: tuple[int, ...]
    reaching_out: tuple[int, ...]
    """Tracing; other processes' memory and descriptors; io_uring, which does all of it unfiltered; keys, BPF,
    perf, modules, kexec; mounts and namespaces; leaving the process group, which is the unit that gets killed."""
    executing: tuple[int, ...]
    signalling: tuple[int, ...]
    """Those that name a process in their first argument."""


# fmt: off
_CALLS = {
    "x86_64": _Calls(
        audit=0xC000003E, clone=56, clone3=435,
        sockets=(41, 42, 43, 49, 50, 53, 288),                  # socket connect accept bind listen socketpair accept4
        reaching_out=(
            101, 310, 311, 312, 434, 438, 424,                  # ptrace process_vm_* kcmp pidfd_*
            425, 426, 427, 321, 298, 323, 248, 249, 250,        # io_uring_* bpf perf_event_open userfaultfd keys
            175, 313, 176, 246, 320, 304,                       # modules kexec open_by_handle_at
            165, 166, 155, 161, 272, 308, 428, 429, 430, 442,   # mount umount pivot_root chroot unshare setns mounts
            109, 112,                                           # setpgid setsid
        ),
        executing=(59, 322),                                    # execve execveat
        signalling=(62, 200, 234, 129, 297),                    # kill tkill tgkill rt_sigqueueinfo rt_tgsigqueueinfo
    ),
    "aarch64": _Calls(
        audit=0xC00000B7, clone=220, clone3=435,
        sockets=(198, 203, 202, 200, 201, 199, 242),
        reaching_out=(
            117, 270, 271, 272, 434, 438, 424,
            425, 426, 427, 280, 241, 282, 217, 218, 219,
            105, 273, 106, 104, 294, 265,
            40, 39, 41, 51, 97, 268, 428, 429, 430, 442,
            154, 157,
        ),
        executing=(221, 281),
        signalling=(129, 130, 131, 138, 240),
    ),
}
# fmt: on


def restrict(*, may_execute: bool, may_open_sockets: bool = False) -> bool:
    """Filter the system calls of this thread, and all that it starts, for good.

    Without `may_execute`, a process can also signal none but itself; with it, that is left to Landlock, since whoever
    runs programs must be able to end them. The process must have set no_new_privs.

    Returns:
        Whether the kernel took the filter: not on an architecture that is not in the table.
    """
    calls = _CALLS.get(platform.machine())
    if calls is None:
        return False
    denied = calls.reaching_out
    denied += () if may_execute else calls.executing
    denied += () if may_open_sockets else calls.sockets
    program = _program(calls, denied, may_execute=may_execute, pid=os.getpid())
    code = ctypes.create_string_buffer(b"".join(program))
    libc = ctypes.CDLL(None, use_errno=True)
    header = struct.pack("@HP", len(program), ctypes.addressof(code))
    return bool(libc.prctl(_SET_SECCOMP, _MODE_FILTER, header, 0, 0) == 0)


def _program(calls: _Calls, denied: tuple[int, ...], *, may_execute: bool, pid: int) -> list[bytes]:
    """Blocks of the form "unless it is this call, go on after this block"."""
    program = [
        _step(_LOAD, _ARCHITECTURE),
        _step(_JUMP_EQUAL, calls.audit, then=1),
        _step(_RETURN, _DENY),
        _step(_LOAD, _NUMBER),
        _step(_JUMP_AT_LEAST, _X32_BIT, otherwise=1),
        _step(_RETURN, _DENY),
    ]
    for number in denied:
        program += [_step(_JUMP_EQUAL, number, otherwise=1), _step(_RETURN, _DENY)]
    # The flags of clone3 lie in memory, out of a filter's sight; told that it does not exist, the C library uses clone.
    program += [_step(_JUMP_EQUAL, calls.clone3, otherwise=1), _step(_RETURN, _UNKNOWN)]
    program += _on_argument(calls.clone, _step(_JUMP_ANY_BIT, _NEW_NAMESPACES, otherwise=1))
    if not may_execute:
        for number in calls.signalling:
            program += _on_argument(number, _step(_JUMP_EQUAL, pid, then=1))
    return [*program, _step(_RETURN, _ALLOW)]


def _on_argument(number: int, skip_denial: bytes) -> list[bytes]:
    """For this call, deny unless `skip_denial` jumps over it, by the low word of the first argument."""
    return [
        _step(_JUMP_EQUAL, number, otherwise=4),
        _step(_LOAD, _FIRST_ARGUMENT),
        skip_denial,
        _step(_RETURN, _DENY),
        _step(_RETURN, _ALLOW),
    ]


def _step(code: int, operand: int, *, then: int = 0, otherwise: int = 0) -> bytes:
    return struct.pack("=HBBI", code, then, otherwise, operand)
