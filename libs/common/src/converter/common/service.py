"""What every service's `__main__` calls: settings, logs, event loop, signals and the exit code, in one place.

    Unreachable    something that the service cannot start without does not answer

Exit codes: 0 when `main` returned; 1 for bad settings, for something unreachable, for an unhandled exception; 2 for an
argument; 128 and the signal's number when a second signal cut the shutdown short.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import NoReturn, TypeVar
from urllib.parse import urlsplit

import structlog
import uvloop

from converter.common import logs, tracing
from converter.common.background import background
from converter.common.environment import without_password
from converter.common.metrics import watch_loop
from converter.common.settings import ServiceSettings, SettingsError, load

LISTEN_TIMEOUT_S = 5.0

S = TypeVar("S", bound=ServiceSettings)
Main = Callable[[S, asyncio.Event], Awaitable[None]]
"""A service: `main(settings, stop)` runs until `stop` is set, then finishes what it has begun and returns."""

log = structlog.get_logger()


class Unreachable(Exception):
    """`what` does not answer at `address` (a password in it is dropped), because of `why`."""

    def __init__(self, what: str, address: str, why: str) -> None:
        address = without_password(address)
        super().__init__(f"cannot reach {what} at {address}: {why}")
        self.what, self.address, self.why = what, address, why


def run(name: str, settings_type: type[S], main: Main[S]) -> NoReturn:
    """Run the service `name` with the settings that the environment makes, until SIGTERM or SIGINT; then exit.

    It takes no arguments; `--help` says what the program is, in its module's words.
    """
    _take_no_arguments(name)
    try:
        settings = load(settings_type, os.environ)
    except SettingsError as error:
        logs.configure(name, "INFO")
        raise SystemExit(_refuse(error)) from None
    logs.configure(name, settings.log_level)
    with tracing.exported(name, settings.otel_exporter_otlp_endpoint):
        code = _serve(settings, main)
    raise SystemExit(code)


async def must_listen(what: str, url: str) -> None:
    """Look once, at the start, whether anything listens where `what` should; what it answers shows later.

    Raises:
        Unreachable: nothing does, within `LISTEN_TIMEOUT_S`.
    """
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        async with asyncio.timeout(LISTEN_TIMEOUT_S):
            _, writer = await asyncio.open_connection(parts.hostname, port)
    except OSError as error:
        raise Unreachable(what, url, error.strerror or type(error).__name__) from error
    writer.close()


def die() -> None:
    """End the process at once, for a supervisor to start it anew: something has happened that it cannot heal."""
    os._exit(1)


def _take_no_arguments(name: str) -> None:
    argparse.ArgumentParser(
        prog=name,
        description=sys.modules["__main__"].__doc__,
        epilog="Settings are environment variables; env.example in the repository lists and explains them.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args()


def _serve(settings: S, main: Main[S]) -> int:
    async def serve() -> None:
        stop = asyncio.Event()
        _stop_on_signals(stop)
        async with background(watch_loop):
            await main(settings, stop)

    log.info("service.starting", pid=os.getpid())
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve())
    except SettingsError as error:
        return _refuse(error)
    except Unreachable as error:
        log.error("service.unreachable", what=error.what, address=error.address, why=error.why)
        return 1
    except Exception:
        log.exception("service.crashed")
        return 1
    log.info("service.stopped")
    return 0


def _refuse(error: SettingsError) -> int:
    for problem in error.problems:
        log.error("settings.refused", **problem._asdict())
    return 1


def _stop_on_signals(stop: asyncio.Event) -> None:
    def on_signal(number: signal.Signals) -> None:
        if stop.is_set():
            log.warning("service.killed", signal=number.name)
            os._exit(128 + number)
        log.info("service.stopping", signal=number.name)
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
