"""Landlock: what a process may reach of the file system and the network, without privilege, for good.

The numbers are the kernel's (include/uapi/linux/landlock.h; https://docs.kernel.org/userspace-api/landlock.html).
A Landlock domain also may not trace processes outside of it, so their memory and environment cannot be read.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import stat
import struct
from collections.abc import Iterable
from pathlib import Path

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every architecture
_GET_VERSION = 1
_RULE_PATH_BENEATH = 1

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_REMOVE_DIR, _REMOVE_FILE, _MAKE_DIR, _MAKE_REG = 1 << 4, 1 << 5, 1 << 7, 1 << 8
_REFER, _TRUNCATE = 1 << 13, 1 << 14
_OF_A_FILE = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE
_READ = _READ_FILE | _READ_DIR
# No devices, sockets, pipes or links: what lies in a work directory is a directory or a plain file.
_WRITE = _WRITE_FILE | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG | _REFER | _TRUNCATE

_TCP = 0b11  # bind, connect; since ABI 4
_SCOPE = 0b11  # abstract sockets, signals; since ABI 6
TCP_SINCE, SCOPE_SINCE = 4, 6

_libc = ctypes.CDLL(None, use_errno=True)


def restrict(readable: Iterable[Path], writable: Iterable[Path], *, may_execute: bool) -> int:
    """Deny this thread, and all that it starts, every path but these trees, and TCP.

    Paths that do not exist are left out. The process must have set no_new_privs.

    Returns:
        The kernel's Landlock ABI; 0 if it has none, and then nothing is denied.

    Raises:
        OSError: the kernel has Landlock and refuses these rules.
    """
    abi: int = _libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _GET_VERSION)
    if abi < 1:
        return 0
    handled = _handled(abi)
    may_read = _READ | (_EXECUTE if may_execute else 0)
    ruleset = _create(handled, _TCP if abi >= TCP_SINCE else 0, _SCOPE if abi >= SCOPE_SINCE else 0, abi)
    try:
        for path in readable:
            _allow(ruleset, path, may_read & handled)
        for path in writable:
            _allow(ruleset, path, (may_read | _WRITE) & handled)
        _checked(_libc.syscall(_RESTRICT_SELF, ruleset, 0))
    finally:
        os.close(ruleset)
    return abi


def _handled(abi: int) -> int:
    """Every right over files that this ABI knows: what is handled is denied unless a rule allows it."""
    rights = {1: 13, 2: 14, 3: 15, 4: 15}.get(abi, 16)
    return (1 << rights) - 1


def _create(files: int, tcp: int, scope: int, abi: int) -> int:
    size = 24 if abi >= SCOPE_SINCE else 16 if abi >= TCP_SINCE else 8
    attributes = struct.pack("=QQQ", files, tcp, scope)
    return _checked(_libc.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(size), 0))


def _allow(ruleset: int, path: Path, rights: int) -> None:
    with contextlib.suppress(FileNotFoundError):
        target = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            if not stat.S_ISDIR(os.fstat(target).st_mode):
                rights &= _OF_A_FILE
            rule = struct.pack("=Qi", rights, target)
            _checked(_libc.syscall(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, rule, 0))
        finally:
            os.close(target)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"Landlock: {os.strerror(number)}")
    return result
