"""The commands, and how each ends: with a result, or with a problem that is told.

Each lives in the module that its row in `_COMMANDS` names, which is imported only when the command runs, so that
`--help` needs neither an HTTP client nor the toolchain.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Annotated

from cyclopts import App, CycloptsError, Parameter

from converter.command.codes import ExitCode
from converter.command.output import shown
from converter.command.problems import Problem, Told, told

_PACKAGE = "converter.command"
_COMMANDS = (
    ("login", "login:login", "Keep the address and the credentials of a service."),
    ("submit", "submission:submit", "Have a model converted."),
    ("jobs", "jobs:list_jobs", "List a user's jobs, newest first."),
    ("show", "jobs:show", "Show a job."),
    ("watch", "jobs:watch", "Follow a job until it has ended."),
    ("logs", "jobs:logs", "Show what the toolchain wrote."),
    ("report", "results:report", "Show what a conversion found out about the model."),
    ("download", "results:download", "Fetch what a job made."),
    ("promote", "results:promote", "Have what a job made put into the file store."),
    ("cancel", "jobs:cancel", "End an active job."),
    ("delete", "jobs:delete", "Cancel an active job, or delete one that has ended."),
    ("doctor", "doctor:doctor", "Look whether a deployment works, and what to do where it does not."),
    ("verify", "verification:verify", "Check a file against the signed statement beside it."),
    ("inspect", "files:inspect", "Say what is in a model or an artifact."),
    ("run", "files:run", "Run a .ref.bie or .ref.nef on one image."),
)
_EPILOGUE = "Exit codes: " + ", ".join(f"{code.value} {code.meaning}" for code in ExitCode) + "."
_USAGES = {"submit": "Usage: converter submit --platform CHOICE --model-id INT [OPTIONS] MODEL [IMAGES...]"}
"""Where cyclopts' own would not name the arguments."""
_COMMON = "./contracts ./libs/common"
_TOOLCHAIN = f"{_COMMON} ./libs/toolchain ./libs/kneron"
_NEEDS = {
    "doctor": ("converter.common", _COMMON),
    "verify": ("converter.common", _COMMON),
    "inspect": ("converter.kneron", _TOOLCHAIN),
    "run": ("converter.kneron", _TOOLCHAIN),
}
"""By command, the package that it needs beyond the client, and the folders of the repository that bring it."""


def application() -> App:
    """The commands, each yet to be imported."""
    app = App(
        name="converter",
        help="Converts ONNX models for Kneron NPUs, and looks into what came of them.",
        help_epilogue=_EPILOGUE,
        version=lambda: metadata.version("converter-client"),
        help_format="plaintext",
        suppress_keyboard_interrupt=False,
        result_action="return_value",
        exit_on_error=False,
        print_error=False,
        default_parameter=Parameter(show_default=False, negative_iterable=()),  # words say it better than a repr
    )
    for name, place, summary in _COMMANDS:
        needed, folders = _NEEDS.get(name, (_PACKAGE, ""))
        installed = importlib.util.find_spec(needed) is not None
        command = f"{_PACKAGE}.{place}" if installed else _not_installed(folders)
        app.command(command, name=name, help=summary, usage=_USAGES.get(name))
    app.register_install_completion_command(help="Install completion for this shell.")
    return app


def _not_installed(folders: str) -> Callable[..., None]:
    def command(*_: Annotated[str, Parameter(allow_leading_hyphen=True)]) -> None:
        """What it needs is not installed."""
        needed = f"this command needs more than is installed; in a clone of the repository: pip install {folders}"
        raise Problem(needed, ExitCode.USAGE)

    return command


def run(given: Sequence[str]) -> int:
    """Run the command in `given`.

    Returns:
        Its exit code.
    """
    try:
        application()(given)
    except CycloptsError as wrong:
        known = given and given[0] in {name for name, _, _ in _COMMANDS}
        hint = f"hint: converter {given[0]} --help" if known else "hint: converter --help lists the commands"
        _tell(Told(ExitCode.USAGE, [str(wrong), hint]), as_json="--json" in given)
        return ExitCode.USAGE
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else ExitCode.FAILED
    except BrokenPipeError:
        # Who reads has seen enough. What is still buffered has nowhere to go, at the interpreter's end neither.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.FAILED
    except Exception as problem:
        found = told(problem)
        if found is None:
            raise
        _tell(found, as_json="--json" in given)
        return found.code
    return ExitCode.DONE


def _tell(problem: Told, *, as_json: bool) -> None:
    if as_json and not problem.answered:
        facts = problem.facts or {"code": problem.code.name.lower(), "message": "\n".join(problem.lines)}
        sys.stdout.write(json.dumps({"error": facts}, indent=1, ensure_ascii=False) + "\n")
    sys.stderr.writelines(f"converter: {shown(line)}\n" for line in problem.lines)
