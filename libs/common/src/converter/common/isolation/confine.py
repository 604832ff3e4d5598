"""How a forked process leaves the warden behind and gives up what a converter has no use for."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import struct
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from converter.common.isolation import landlock, seccomp
from converter.common.isolation.outcomes import MIB, Confinement, Limits
from converter.contracts.report.stage import Obtained

ADDRESS_SPACE_HEADROOM = 2 << 30
"""Mapped and never touched: libraries, thread stacks, allocator arenas. Resident memory is what the warden watches."""
REPORT = 3
"""The descriptor that the converter's words go to."""
_SYSTEM_READABLE = (
    "/usr",
    "/lib",
    "/lib64",
    "/etc/ld.so.cache",
    "/proc/self",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/sys/devices/system/cpu",
    "/dev/random",
    "/dev/urandom",
)
ENVIRONMENT_KEPT = ("PATH", "LD_LIBRARY_PATH", "ORT_DISABLE_TELEMETRY")
_SET_DEATH_SIGNAL, _SET_NAME, _SET_SUBREAPER, _SET_NO_NEW_PRIVS = 1, 15, 36, 38  # prctl
_CAPSET = {"x86_64": 126, "aarch64": 91}
_CAPABILITY_VERSION_3 = 0x20080522

libc = ctypes.CDLL(None, use_errno=True)


def adopt_orphans() -> None:
    """From now on, a descendant whose parent dies becomes this process's child."""
    libc.prctl(_SET_SUBREAPER, 1, 0, 0, 0)


def leave_warden(warden: int, report: int, output: int, workdir: Path, environment: Mapping[str, str]) -> None:
    """Leave the warden's session, descriptors, directory and environment for `environment`; die when it dies.

    Raises:
        ProcessLookupError: it is dead already.
    """
    os.setsid()
    libc.prctl(_SET_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != warden:
        raise ProcessLookupError("the warden has died")
    libc.prctl(_SET_NAME, b"converter", 0, 0, 0)
    adopt_orphans()  # so that they stay where the warden counts their memory
    _keep_only(report, output)
    os.chdir(workdir)
    kept = {name: os.environ[name] for name in ENVIRONMENT_KEPT if name in os.environ}
    os.environ.clear()
    os.environ.update({**kept, **environment}, HOME=str(workdir), TMPDIR=str(workdir), LANG="C.UTF-8")
    tempfile.tempdir = str(workdir)


def _keep_only(report: int, output: int) -> None:
    """0 is empty, 1 and 2 are the log, 3 is the report. What else the warden has open is none of a converter's."""
    report, output = os.dup(report), os.dup(output)  # no longer among those that are about to be replaced
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.dup2(report, REPORT, inheritable=False)
    os.closerange(REPORT + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def confine(limits: Limits, workdir: Path, confinement: Confinement) -> Obtained:
    """Take everything away that the kernel lets us. In this order: a step may need what a later one denies."""
    _limit(limits)
    with contextlib.suppress(OSError):
        os.nice(5)  # the service's heartbeat goes first
        Path("/proc/self/oom_score_adj").write_text("900")  # and where memory runs out, this process does
    libc.prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    capabilities_dropped = _drop_capabilities()
    readable = (
        *map(Path, (*_SYSTEM_READABLE, sys.prefix, sys.base_prefix)),
        *map(Path, filter(None, sys.path)),
        *confinement.readable,
    )
    writable = (workdir, Path(os.devnull), *confinement.writable)
    abi = landlock.restrict(readable, writable, may_execute=confinement.may_execute)
    return Obtained(
        landlock_abi=abi,
        tcp_denied=abi >= landlock.TCP_SINCE,
        signals_scoped=abi >= landlock.SCOPE_SINCE,
        seccomp=seccomp.restrict(may_execute=confinement.may_execute, may_open_sockets=confinement.may_open_sockets),
        capabilities_dropped=capabilities_dropped,
        uid=os.getuid(),
    )


def _limit(limits: Limits) -> None:
    # The warden's watch ends a converter long before; this holds even where the warden is stopped.
    cpu_s = limits.cpu_s or int(limits.timeout_s * (os.cpu_count() or 1)) + 1
    address_space = limits.memory_mb * MIB + ADDRESS_SPACE_HEADROOM
    for limit, soft, hard in (
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_NOFILE, limits.open_files, limits.open_files),
        (resource.RLIMIT_FSIZE, limits.file_size_bytes, limits.file_size_bytes),
        (resource.RLIMIT_CPU, cpu_s, cpu_s + 1),  # SIGXCPU, which says what it is, before SIGKILL, which does not
        (resource.RLIMIT_AS, address_space, address_space),
    ):
        granted = resource.getrlimit(limit)[1]
        if granted == resource.RLIM_INFINITY:
            resource.setrlimit(limit, (soft, hard))
        else:
            resource.setrlimit(limit, (min(soft, granted), min(hard, granted)))


def _drop_capabilities() -> bool:
    """Matters where the service is root, whose processes could raise their own limits again."""
    number = _CAPSET.get(os.uname().machine)
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    return number is not None and libc.syscall(number, header, bytes(24)) == 0
