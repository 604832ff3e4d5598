"""Python that has imported what the services share of others' packages, and forks a process for each program to run.

    python -u tests/warm_interpreter.py DESCRIPTOR

Of this project's own code nothing is imported here: a program finds the environment and the files that it was given.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import sys
from typing import Any

ORDER_BYTES = 1 << 20
PR_SET_PDEATHSIG = 1
SHARED = (
    "aiohttp",
    "anyio._backends._asyncio",
    "cryptography.hazmat.primitives.asymmetric.ed25519",
    "h11",
    "httpx",
    "jinja2",
    "joserfc.jwt",
    "litestar",
    "litestar._kwargs",
    "litestar.contrib.opentelemetry",
    "litestar.datastructures",
    "litestar.exceptions.responses",
    "litestar.middleware.allowed_hosts",
    "litestar.openapi",
    "litestar.plugins.attrs",
    "litestar.plugins.pydantic",
    "litestar.response",
    "miniopy_async",
    "msgspec",
    "multipart",
    "nats",
    "nkeys",
    "numpy",
    "onnx",
    "opentelemetry.trace.propagation.tracecontext",
    "prometheus_client",
    "structlog",
    "uvicorn.lifespan.on",
    "uvicorn.protocols.http.httptools_impl",
    "uvloop",
)


def next_program(control: socket.socket) -> dict[str, Any]:
    """Obey orders; returns in a process of its own for each program that is to run."""
    while True:
        data, descriptors, *_ = socket.recv_fds(control, ORDER_BYTES, 1)
        if not data:
            sys.exit()
        order = json.loads(data)
        if "ended" in order:
            _, status = os.waitpid(order["ended"], 0)
            control.send(json.dumps(os.waitstatus_to_exitcode(status)).encode())
        elif os.fork() == 0:
            try:
                become(order, descriptors[0])
            except OSError as error:
                control.send(json.dumps(str(error)).encode())
                os._exit(1)
            control.send(json.dumps(os.getpid()).encode())
            control.close()
            return order
        for descriptor in descriptors:
            os.close(descriptor)


def become(order: dict[str, Any], output: int) -> None:
    """Take on what a new process would have been started with."""
    die_with_parent()
    os.setsid()
    os.environ.clear()
    os.environ.update(order["environ"])
    os.chdir(order["directory"])
    sys.path[0] = order["directory"]
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    sys.argv = [order["module"], *order["arguments"]]


def die_with_parent() -> None:
    """One that has died already closes its end of the socket."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    die_with_parent()
    for name in SHARED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    program = next_program(socket.socket(fileno=int(sys.argv[1])))
    runpy.run_module(program["module"], run_name="__main__", alter_sys=True)
