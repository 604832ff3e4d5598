"""The development stack's commands, and how they are taken down."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog
from rich.console import Console

from converter.devstack.addresses import outside
from converter.devstack.demo import demo, wanted
from converter.devstack.services import SERVICES
from converter.devstack.stack import Stack

DIRECTORY = Path(".dev")
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
Command = Callable[[Console, argparse.Namespace], Awaitable[None]]


async def _up(console: Console, arguments: argparse.Namespace) -> None:
    stack = Stack(
        arguments.directory,
        workers=arguments.workers,
        replaced=outside(os.environ),
        default_ports=True,
        keep_data=True,
        tell=lambda sentence: console.print(sentence, style="yellow", markup=False),
    )
    console.print("starting the stack …")
    async with stack:
        for name, value in stack.env.items():
            if "://" in value:
                console.print(f"  {name:15}{value}")
        console.print(f"credentials are in {stack.directory / 'stack.env'}, logs in {stack.directory / 'logs'}")
        console.print("Ctrl-C takes it down")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            console.print("taking the stack down …")


async def _demo(console: Console, arguments: argparse.Namespace) -> None:
    await demo(console, arguments.directory / "demo", wanted(arguments.model, arguments.images, dict(arguments.field)))


async def _until_signalled(command: Awaitable[None]) -> int:
    """Do `command`; the exit code. The first signal cancels it, so that it takes down what it brought up."""
    task, loop, received = asyncio.ensure_future(command), asyncio.get_running_loop(), list[signal.Signals]()

    def on_signal(number: signal.Signals) -> None:
        if received:
            os._exit(128 + number)  # the kernel ends what the stack started
        received.append(number)
        print(f"{number.name}: taking everything down …", file=sys.stderr)  # noqa: T201 - for whoever pressed Ctrl-C
        task.cancel()

    for number in SIGNALS:
        loop.add_signal_handler(number, on_signal, number)
    try:
        await task
    except asyncio.CancelledError:
        if not received:
            raise
        return 128 + received[0]
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m converter.devstack", description="The development stack.")
    parser.add_argument(
        "--directory", type=Path, default=DIRECTORY, help="takes data, logs and addresses (%(default)s)"
    )
    commands = parser.add_subparsers(required=True)
    up = commands.add_parser("up", help="run everything on loopback until Ctrl-C")
    up.add_argument("--workers", type=_workers, default={}, metavar="onnx=1,bie=2", help="processes of a service")
    up.set_defaults(command=_up)
    shown = commands.add_parser("demo", help="convert a model through the whole stack")
    shown.add_argument("--model", type=Path, help="an ONNX model of your own")
    shown.add_argument("--images", type=Path, help="a directory of reference images for it")
    shown.add_argument("--field", type=_pair, action="append", default=[], metavar="NAME=VALUE", help="a form field")
    shown.set_defaults(command=_demo)
    return parser.parse_args()


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"not NAME=VALUE: {text!r}")
    return name, value


def _workers(text: str) -> dict[str, int]:
    known = {service.short for service in SERVICES}
    counts = dict(_pair(part) for part in text.split(","))
    for name, count in counts.items():
        if name not in known or not count.isdecimal() or int(count) < 1:
            raise argparse.ArgumentTypeError(f"{name}={count}: expected one of {', '.join(sorted(known))} and a number")
    return {name: int(count) for name, count in counts.items()}


def main() -> int:
    """Run the command that the arguments name; the exit code."""
    arguments = _arguments()
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=160)
    # What the stack's own connection to the bus has to say is of no interest to who looks at the screen.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("CRITICAL"))
    try:
        return asyncio.run(_until_signalled(arguments.command(console, arguments)))
    except (RuntimeError, OSError) as error:
        console.print(f"✗ {error}", style="red", markup=False, soft_wrap=True)
        return 1
