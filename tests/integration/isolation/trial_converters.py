"""Converters that do well, fail, and attack. They run in processes of their own and are imported only there."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from converter.common.conversion import Conversion, ConversionRefused, ConversionTask, Progress
from converter.contracts.job import Toolchain

MIB = 1 << 20
REPORT = 3  # the descriptor of the pipe to the service


def conversion(task: ConversionTask, report: dict[str, object] | None = None, **other: object) -> Conversion:
    artifact = task.workdir / "model.bin"
    artifact.write_bytes(b"converted")
    facts: dict[str, Any] = {
        "artifact": artifact,
        "filename": "model.bin",
        "media_type": "application/octet-stream",
        "toolchain": Toolchain(name="test", version="1"),
        "report": report or {},
    }
    return Conversion(**(facts | other))


def converts(task: ConversionTask, progress: Progress) -> Conversion:
    progress(0.25, "reading")
    print("a line from Python")
    ctypes.CDLL(None).puts(b"a line from C")
    os.write(2, b"a line from the standard error\n")
    progress(float("nan"), "lost")
    progress(7.0, "done")
    return conversion(task, {"nodes": 3, "read": task.inputs["model"].read_text()}, warnings=("beware",))


def refuses(task: ConversionTask, progress: Progress) -> Conversion:
    raise ConversionRefused(
        "model_unsupported", "no such operator \ud800", node="conv1", op="Loop", evidence="line 1", hint="remove it"
    )


def raises(task: ConversionTask, progress: Progress) -> Conversion:
    raise LookupError("first line\nsecond line")


def reports_no_json(task: ConversionTask, progress: Progress) -> Conversion:
    return conversion(task, {"what": object()})


def sleeps(task: ConversionTask, progress: Progress) -> Conversion:
    progress(0.1, f"pid {os.getpid()}")
    time.sleep(60)
    return conversion(task)


def burns_cpu(task: ConversionTask, progress: Progress) -> Conversion:
    while True:
        pass


def fills_memory(task: ConversionTask, progress: Progress) -> Conversion:
    held = []
    while True:
        held.append(b"x" * (8 * MIB))
        time.sleep(0.002)


def allocates_at_once(task: ConversionTask, progress: Progress) -> Conversion:
    bytearray(1 << 45)
    return conversion(task)


def fails_in_a_library_for_memory(task: ConversionTask, progress: Progress) -> Conversion:
    raise RuntimeError("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : std::bad_alloc")


def aborts_for_memory(task: ConversionTask, progress: Progress) -> Conversion:
    os.write(2, b"terminate called after throwing an instance of 'std::bad_alloc'\n")
    os.abort()


def fills_memory_in_children(task: ConversionTask, progress: Progress) -> Conversion:
    for _ in range(4):
        if os.fork() == 0:
            held = b"x" * (80 * MIB)
            time.sleep(60)
            os._exit(len(held))
    time.sleep(60)
    return conversion(task)


def reads_null(task: ConversionTask, progress: Progress) -> Conversion:
    ctypes.string_at(0)
    return conversion(task)


def exits(task: ConversionTask, progress: Progress) -> Conversion:
    sys.exit(3)


def exits_at_once(task: ConversionTask, progress: Progress) -> Conversion:
    os._exit(4)


def leaves_children(task: ConversionTask, progress: Progress) -> Conversion:
    """A child, and the child of a child that has died."""
    for generations in (1, 2):
        reading, writing = os.pipe()
        if os.fork() == 0:
            if generations == 2 and os.fork() != 0:
                os._exit(0)
            os.write(writing, str(os.getpid()).encode())
            time.sleep(60)
            os._exit(0)
        progress(0.5, f"pid {os.read(reading, 20).decode()}")
    return conversion(task)


def leaves_children_and_sleeps(task: ConversionTask, progress: Progress) -> Conversion:
    child = os.fork()
    if child:
        progress(0.5, f"pid {child}")
    return sleeps(task, progress if child else lambda *_: None)


def forks_for_ever(task: ConversionTask, progress: Progress) -> Conversion:
    progress(0.5, f"group {os.getpgrp()}")
    while True:
        with contextlib.suppress(OSError):
            os.fork()
        time.sleep(0.02)


def prints_much(task: ConversionTask, progress: Progress) -> Conversion:
    for number in range(20_000):
        print(f"line {number}")
    return conversion(task)


def prints_no_newline(task: ConversionTask, progress: Progress) -> Conversion:
    print("x" * 10_000, end="")
    return conversion(task)


def speaks_no_json(task: ConversionTask, progress: Progress) -> Conversion:
    os.write(REPORT, b"\x80\x04 cposix\nsystem\n")
    time.sleep(60)
    return conversion(task)


def speaks_in_a_maze(task: ConversionTask, progress: Progress) -> Conversion:
    os.write(REPORT, b'{"type":"finished","conversion":' + b"[" * 50_000 + b"\n")
    time.sleep(60)
    return conversion(task)


def speaks_without_end(task: ConversionTask, progress: Progress) -> Conversion:
    while True:
        os.write(REPORT, b"x" * 65536)


def speaks_twice(task: ConversionTask, progress: Progress) -> Conversion:
    os.write(REPORT, b'{"type":"exhausted","evidence":""}\n')
    return conversion(task)


def confines_again(task: ConversionTask, progress: Progress) -> Conversion:
    obtained = {
        "landlock_abi": 99,
        "tcp_denied": True,
        "signals_scoped": True,
        "seccomp": True,
        "capabilities_dropped": True,
        "uid": 0,
    }
    os.write(REPORT, json.dumps({"type": "confined", "obtained": obtained}).encode() + b"\n")
    return conversion(task)


def fails_with_an_unknown_code(task: ConversionTask, progress: Progress) -> Conversion:
    os.write(REPORT, b'{"type":"declined","code":"made_up","message":""}\n')
    os._exit(0)


def ends_in_the_middle_of_a_word(task: ConversionTask, progress: Progress) -> Conversion:
    os.write(REPORT, b'{"type":"fini')
    os._exit(0)


def names_a_foreign_artifact(task: ConversionTask, progress: Progress) -> Conversion:
    return conversion(task, artifact=Path("/etc/hostname"))


def climbs_out_with_its_artifact(task: ConversionTask, progress: Progress) -> Conversion:
    return conversion(task, artifact=task.workdir / ".." / "secret")


def names_a_missing_artifact(task: ConversionTask, progress: Progress) -> Conversion:
    return conversion(task, artifact=task.workdir / "missing")


def names_a_directory(task: ConversionTask, progress: Progress) -> Conversion:
    return conversion(task, artifact=task.workdir)


def names_a_path_with_a_nul(task: ConversionTask, progress: Progress) -> Conversion:
    return conversion(task, artifact=Path("a\0b"))


def gives_a_filename_with_a_path(task: ConversionTask, progress: Progress) -> Conversion:
    return conversion(task, filename="../model.bin")


def gives_a_filename_with_a_header(task: ConversionTask, progress: Progress) -> Conversion:
    return conversion(task, filename="model.bin\r\nSet-Cookie: a=b")


def removes_its_log(task: ConversionTask, progress: Progress) -> Conversion:
    print("before")
    (task.workdir / "stage.log").unlink()
    return conversion(task)


def puts_a_locked_directory_in_place_of_its_log(task: ConversionTask, progress: Progress) -> Conversion:
    made = conversion(task)
    removes_its_log(task, progress)
    inner = task.workdir / "stage.log" / "inner"
    inner.mkdir(parents=True)
    (inner / "file").touch()
    for locked in (inner, inner.parent, task.workdir):
        locked.chmod(0o500)
    return made


def swells_its_log(task: ConversionTask, progress: Progress) -> Conversion:
    print("before")
    log = task.workdir / "stage.log"
    while not log.stat().st_size:  # the service writes what was printed; the time limit bounds this
        time.sleep(0.01)
    os.truncate(log, 1 << 19)
    return conversion(task)


def locks_its_directory(task: ConversionTask, progress: Progress) -> Conversion:
    made = conversion(task)
    task.workdir.chmod(0)
    return made


def outcome_of(act: Callable[[], object]) -> str:
    try:
        act()
    except Exception as error:  # noqa: BLE001 - how it failed is the result
        return type(error).__name__
    return "allowed"


def open_many() -> None:
    opened = []
    try:
        while len(opened) < 1000:
            opened.append(os.dup(0))
    finally:
        for descriptor in opened:
            os.close(descriptor)


def tries_everything(task: ConversionTask, progress: Progress) -> Conversion:
    """What came of each attempt to reach out, in the report."""
    target = json.loads(task.inputs["model"].read_text())
    service = target["service"]
    libc = ctypes.CDLL(None, use_errno=True)

    def call(function: str, *arguments: object) -> None:
        if getattr(libc, function)(*arguments) < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    unbound = signal.SIGCONT
    attempts: dict[str, Callable[[], object]] = {
        "tcp": lambda: socket.create_connection(("127.0.0.1", target["port"]), 1),
        "udp": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
        "unix_socket": lambda: socket.socket(socket.AF_UNIX),
        "read_foreign_file": lambda: Path(target["secret"]).read_text(),
        "read_etc": lambda: Path("/etc/passwd").read_text(),
        "list_foreign_directory": lambda: list(Path(target["secret"]).parent.iterdir()),
        "write_outside": lambda: Path("../written").write_text("x"),
        "write_installation": lambda: Path(__file__).with_name("written").write_text("x"),
        "link": lambda: Path("link").symlink_to("/etc/passwd"),
        "fifo": lambda: os.mkfifo("fifo"),
        "execute": lambda: subprocess.run(["/bin/true"], check=True),
        "service_environment": lambda: Path(f"/proc/{service}/environ").read_bytes(),
        "service_memory": lambda: Path(f"/proc/{service}/mem").open("rb").close(),
        "trace": lambda: call("ptrace", 16, service, 0, 0),
        "signal_service": lambda: os.kill(service, unbound),
        "signal_warden": lambda: os.kill(os.getppid(), unbound),
        "leave_session": os.setsid,
        "leave_group": lambda: os.setpgid(0, 0),
        "raise_limit": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (100_000, 100_000)),
        "namespace": lambda: call("unshare", 0x10000000),
        "mount": lambda: call("mount", b"none", b".", b"tmpfs", 0, 0),
        "big_file": lambda: Path("big").write_bytes(b"x" * (2 * MIB)),
        "many_files": open_many,
    }
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    results = {name: outcome_of(attempt) for name, attempt in attempts.items()}
    return conversion(task, {"results": results})


def reports_its_surroundings(task: ConversionTask, progress: Progress) -> Conversion:
    import threading  # noqa: PLC0415 - in the converter's process

    thread = threading.Thread(target=lambda: None)
    thread.start()
    thread.join()
    descriptors = ((number, Path(f"/proc/self/fd/{number}")) for number in range(256))
    surroundings = {
        "environment": dict(os.environ),
        "initial_environment": Path("/proc/self/environ").read_text(errors="replace"),
        "directory": str(Path.cwd()),
        "descriptors": {number: str(path.readlink()) for number, path in descriptors if path.is_symlink()},
        "is_group_leader": os.getpid() == os.getpgrp() == os.getsid(0),
        "core": resource.getrlimit(resource.RLIMIT_CORE),
        "effective_capabilities": next(
            line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapEff")
        ),
    }
    return conversion(task, surroundings)


def runs_a_program(task: ConversionTask, progress: Progress) -> Conversion:
    said = subprocess.run(["/bin/echo", "hello"], check=True, capture_output=True, text=True)
    return conversion(task, {"said": said.stdout, "read": (Path(task.inputs["model"])).read_text()})
