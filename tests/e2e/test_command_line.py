"""`converter` as people and scripts call it: a process, against the whole system."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import pytest_asyncio

from converter.command import main
from converter.devstack.demo import DATA
from converter.devstack.stack import Stack

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]

ROOT = Path(__file__).parents[2]
MODEL, IMAGES = DATA / "digits_cnn.onnx", DATA / "digits_calibration"
FEW = tuple(sorted(IMAGES.glob("*.png"))[:4])
ORDER = ("submit", MODEL, *FEW, "--platform", "720", "--model-id", "40001")


class Said(NamedTuple):
    code: int
    out: str
    err: str

    def json(self) -> Any:  # noqa: ANN401 - JSON
        return json.loads(self.out)


Converter = Callable[..., Coroutine[Any, Any, Said]]


@pytest.fixture(scope="module")
def environ(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """That of a user who has configured nothing yet."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CONVERTER_")}
    return kept | {"XDG_CONFIG_HOME": str(tmp_path_factory.mktemp("config"))}


async def started(environ: dict[str, str], *arguments: object) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "converter.command", *map(str, arguments)),
        env=environ,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        # A suite that runs in the background has Ctrl-C ignored, and would hand that down.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )


@pytest.fixture(scope="module")
def process(environ: dict[str, str]) -> Converter:
    """Runs the command in a process of its own; whatever happens, it shows no traceback."""

    async def run(*arguments: object, stdin: str = "", env: dict[str, str] | None = None) -> Said:
        process = await started(environ | (env or {}), *arguments)
        out, err = await process.communicate(stdin.encode())
        assert b"Traceback" not in err, err.decode()
        return Said(process.returncode or 0, out.decode(), err.decode())

    return run


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def converter(stack: Stack, process: Converter, environ: dict[str, str]) -> Converter:
    """Runs the command in this process, for somebody who has logged in; it says no secret."""
    env = stack.env
    kept = await process(
        *("login", "--url", env["GATEWAY_URL"], "--token-url", env["TOKEN_URL"], "--client-id", env["CLIENT_ID"]),
        stdin=env["CLIENT_SECRET"] + "\n",
    )
    assert kept.code == 0, kept.err

    def run(arguments: tuple[object, ...]) -> Said:
        out, err = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            patch.setenv("XDG_CONFIG_HOME", environ["XDG_CONFIG_HOME"])
            code = main([str(argument) for argument in arguments])
        assert env["CLIENT_SECRET"] not in out.getvalue() + err.getvalue()
        return Said(code, out.getvalue(), err.getvalue())

    async def in_thread(*arguments: object) -> Said:
        return await asyncio.to_thread(run, arguments)

    return in_thread


async def test_a_model_goes_from_the_command_line_to_the_file_store(
    stack: Stack, process: Converter, converter: Converter, tmp_path: Path
):
    posted = await process("submit", MODEL, IMAGES, *ORDER[-4:], "--user", "whole", "--output", tmp_path, "--json")
    assert posted.code == 0, posted.err
    assert "made digits_cnn.ref.nef" in posted.err
    job = posted.json()
    assert (job["status"], job["ref_images_count"]) == ("completed", len(list(IMAGES.glob("*.png"))))
    file, job_id = Path(job["file"]), job["job_id"]
    assert file == tmp_path / "digits_cnn.ref.nef"

    key = stack.env["PROVENANCE_PUBLIC_KEY_FILE"]
    verified = await converter("verify", file, "--key", key, "--json")
    assert verified.json()["invocation_id"].startswith(job_id)

    assert job_id in (await converter("jobs", "--user", "whole")).out
    assert (await converter("jobs", "--user", "whole", "--status", "failed")).out == "no jobs\n"
    assert (await converter("show", job_id, "--json")).json()["artifacts"] == job["artifacts"]
    assert job["artifacts"]["nef"]["sha256"] in (await converter("watch", job_id)).out
    assert list((await converter("report", job_id, "--json")).json()["stages"]) == ["onnx", "bie", "nef"]
    assert "dB SNR, good" in (await converter("report", job_id)).out
    assert (await converter("report", job_id, "--html", tmp_path / "report.html")).code == 0
    assert (tmp_path / "report.html").read_text().lower().startswith("<!doctype html>")
    lines = [json.loads(line) for line in (await converter("logs", job_id, "-f", "--json")).out.splitlines()]
    assert {line["stage"] for line in lines} == {"onnx", "bie", "nef"}
    assert lines[0]["line"] in (await converter("logs", job_id, "--stage", "onnx")).out
    assert (await converter("inspect", file, "--json")).json()["self_test"] == "passed"

    again = await converter("download", job_id, "--source", "bie", "-o", tmp_path / "mine.bie", "--json")
    assert again.json()["file"] == str(tmp_path / "mine.bie")
    assert (await converter("verify", tmp_path / "mine.bie", "--key", key)).code == 0
    new = await converter("download", job_id, "-o", f"{tmp_path / 'not' / 'there'}/", "--json")
    assert new.json()["file"] == str(tmp_path / "not" / "there" / file.name)
    promoted = await converter("promote", job_id, "models/whole.nef")
    assert promoted.code == 0, promoted.err
    assert stack.stored_file("models/whole.nef").read_bytes() == file.read_bytes()
    assert (await converter("delete", job_id)).code == 0
    gone = await converter("show", job_id, "--json")
    assert (gone.code, gone.json()["error"]["code"]) == (4, "job_not_found")


async def test_a_verdict_costs_no_job(converter: Converter, tmp_path: Path):
    good = await converter(*ORDER, "--user", "judged", "--dry-run", "--json")
    assert (good.code, good.json()["valid"]) == (0, True)
    text = tmp_path / "text.onnx"
    text.write_text("no model")
    bad = await converter("submit", text, *ORDER[-4:], "--user", "judged", "--dry-run", "--json")
    assert (bad.code, bad.json()["valid"]) == (1, False)
    assert (await converter("jobs", "--user", "judged", "--json")).json() == []


async def test_a_job_that_fails_is_exit_code_1_with_its_reason(converter: Converter):
    said = await converter(*ORDER, "--user", "unlucky", "--quantization", '{"min_snr_db": 90}', "--json")
    error = said.json()["error"]
    assert said.code == 1
    assert error["hint"] in said.err
    assert error["code"] in said.err


async def test_an_interrupted_wait_says_how_to_go_on(stack: Stack, converter: Converter, environ: dict[str, str]):
    await stack.stop("stage-nef")
    waiting = await started(environ, *ORDER, "--user", "patient")
    assert waiting.stderr
    told = ""
    while "made digits_cnn.ref.bie" not in told:
        line = await waiting.stderr.readline()
        assert line, told
        told += line.decode()
    waiting.send_signal(signal.SIGINT)
    _, rest = await waiting.communicate()
    assert waiting.returncode == 130
    job_id = told.partition(": job ")[2].split()[0]
    assert f"converter watch {job_id}" in rest.decode()
    assert "Traceback" not in rest.decode()

    assert (await converter("watch", job_id, "--timeout", "0.1")).code == 5
    busy = await converter(*ORDER, "--user", "patient")
    assert (busy.code, f"converter watch {job_id}" in busy.err) == (4, True)
    assert (await converter("cancel", job_id)).out == f"{job_id} is cancelled\n"
    assert (await converter("watch", job_id)).code == 1
    await stack.start("stage-nef")


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("submit",), 2, "MODEL"),
        (("nothing",), 2, "nothing"),
        (("show",), 2, "JOB_ID"),
        (("submit", "/absent.onnx", *ORDER[-4:]), 1, "/absent.onnx"),
        (("submit", MODEL, "/absent.png", *ORDER[-4:]), 2, "/absent.png"),
        (("submit", MODEL, *ORDER[-4:], "--input-shape", "x"), 2, "name:1,3,224,224"),
        (("submit", MODEL, *ORDER[-4:], "--quantization", "{"), 2, "JSON"),
        (("submit", MODEL, *ORDER[-4:], "--no-wait", "--output", "."), 2, "--no-wait"),
        (("submit", MODEL, *ORDER[-4:], "--version", "zz", "--user", "refused"), 4, "version"),
        (("show", "no-such-job"), 4, "job_not_found"),
        (("show", "x", "--profile", "absent"), 2, "absent"),
        (("show", "x", "--env-file", "/absent.env"), 2, "/absent.env"),
        (("download", "no-such-job", "-o", "/absent/x"), 4, "job_not_found"),
        (("jobs", "--user", "x", "--limit", "-1"), 2, "converter jobs --help"),
        (("inspect", "/absent.onnx"), 1, "/absent.onnx"),
        (("inspect", __file__), 1, __file__),
        (("run", __file__, IMAGES), 1, __file__),
    ],
)
async def test_what_goes_wrong_is_a_line_and_a_code(
    converter: Converter, arguments: tuple[object, ...], code: int, says: str
):
    said = await converter(*arguments)
    assert (said.code, says in said.err, said.out) == (code, True, ""), said.err
    error = (await converter(*arguments, "--json")).json()["error"]
    assert error["code"]
    assert says in json.dumps(error)


async def test_a_service_that_cannot_be_used_is_exit_code_3(stack: Stack, process: Converter, environ: dict[str, str]):
    known = {
        "CONVERTER_URL": stack.env["GATEWAY_URL"],
        "CONVERTER_TOKEN_URL": stack.env["TOKEN_URL"],
        "CONVERTER_CLIENT_ID": stack.env["CLIENT_ID"],
        "CONVERTER_CLIENT_SECRET": "wrong-secret",
    }
    said = await process("show", "x", env=known)
    assert (said.code, "invalid_client" in said.err, "wrong-secret" in said.err) == (3, True, False)
    assert (await process("show", "x", env=known | {"CONVERTER_TOKEN": "not-a-token"})).code == 3
    far = known | {"CONVERTER_URL": "http://converter.example"}
    assert (await process("show", "x", env=far)).code == 2
    other = known | {"CONVERTER_TOKEN": "x", "CONVERTER_URL": stack.env["INTERNAL_URL"]}
    said = await process("show", "x", env=other)
    assert (said.code, "answered something unexpected: HTTP 404" in said.err) == (3, True), said.err
    empty = await process("show", "x", env={"XDG_CONFIG_HOME": "/absent"})
    assert (empty.code, "converter login" in empty.err) == (2, True)


async def test_a_reader_that_has_seen_enough_ends_it_quietly(environ: dict[str, str]):
    process = await asyncio.create_subprocess_shell(
        f"set -o pipefail; {sys.executable} -m converter.command inspect {MODEL} | true",
        executable="/bin/bash",
        env=environ,
        stderr=asyncio.subprocess.PIPE,
    )
    _, err = await process.communicate()
    assert b"Traceback" not in err
    assert b"Exception ignored" not in err


@pytest.mark.parametrize("module", ["converter.command", "converter.devstack"])
async def test_to_be_interrupted_while_it_still_imports_is_no_traceback(environ: dict[str, str], module: str):
    script = _INTERRUPTED_AT_IMPORT.format(module=module)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", script, "--help"), env=environ, stderr=asyncio.subprocess.PIPE
    )
    _, err = await process.communicate()
    assert (process.returncode, "Traceback" in err.decode()) == (130, False), err.decode()


_INTERRUPTED_AT_IMPORT = """
import builtins, runpy, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
imported = builtins.__import__
def interrupting(name, *rest, **options):
    if name in ("cyclopts", "argparse"):
        builtins.__import__ = imported
        signal.raise_signal(signal.SIGINT)
    return imported(name, *rest, **options)
builtins.__import__ = interrupting
runpy.run_module("{module}", run_name="__main__")
"""


async def test_help_needs_neither_an_http_client_nor_the_toolchain(process: Converter):
    helped = await process("--help")
    assert helped.code == 0
    for command in ("submit", "watch", "verify"):
        assert command in helped.out
    asked = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _LOADED), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    out, _ = await asked.communicate()
    assert json.loads(out.splitlines()[-1]) == []


async def test_a_shell_completes_commands_options_and_what_they_may_be(environ: dict[str, str], tmp_path: Path):
    script = tmp_path / "completion"
    shell = await asyncio.create_subprocess_exec(
        *("bash", "-c", _COMPLETED, sys.executable, script),
        env=environ | {"HOME": str(tmp_path)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await shell.communicate()
    assert out.decode().splitlines()[-3:] == ["submit show", "--platform", "520 530 630 720 730"]


_COMPLETED = r"""
$0 -m converter.command --install-completion --shell bash --output $1 && . $1
function=$(complete -p converter | sed 's/.*-F \([^ ]*\).*/\1/')
complete_words() {
  COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
  $function converter
  echo "${COMPREPLY[*]}"
}
complete_words converter s
complete_words converter submit --pl
complete_words converter submit --platform ""
"""

_LOADED = """
import json, sys
from converter.command import main
main(["--help"])
print(json.dumps([name for name in ("httpx", "onnx", "numpy", "nats", "msgspec") if name in sys.modules]))
"""


async def test_the_readmes_commands_work_as_they_stand(stack: Stack, environ: dict[str, str], tmp_path: Path):
    text = (ROOT / "README.md").read_text().partition("## From the command line")[2]
    script = text.partition("```sh\n")[2].partition("```")[0]
    for name, place in (("libs", ROOT / "libs"), (".venv", ROOT / ".venv"), (".dev", stack.directory)):
        (tmp_path / name).symlink_to(place)
    shell = await asyncio.create_subprocess_exec(
        *("bash", "-euo", "pipefail", "-c", script),
        cwd=tmp_path,
        env=environ | {"XDG_CONFIG_HOME": str(tmp_path / "config")},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await shell.communicate()
    assert shell.returncode == 0, out.decode()
    for told in ("dB SNR, good", "nef to models/alice/digits.nef: completed", "self_test    passed"):
        assert told in out.decode()


async def test_the_doctor_finds_what_does_not_work_and_says_what_to_do(
    stack: Stack, process: Converter, tmp_path: Path
):
    file = ("--env-file", stack.directory / "stack.env")
    operator = {"NATS_NKEY_SEED_FILE": str(stack.directory / "nats-users" / "operator.seed")}
    well = await process("doctor", *file, "--json", env=operator)
    assert (well.code, {each["status"] for each in well.json()}) == (0, {"ok"}), well.out
    assert {each["part"] for each in well.json()} == {
        *("gateway", "token", "issuer's keys", "event bus", "object storage", "file store")
    }
    assert any("consumers are there" in each["found"] for each in well.json())

    skipped = await process("doctor", *file)
    assert (skipped.code, "NATS_NKEY_SEED_FILE not set" in skipped.out) == (0, True)
    nothing = await process("doctor", env={"XDG_CONFIG_HOME": "/absent"})
    assert (nothing.code, "converter login" in nothing.out) == (2, True)

    await stack.stop("promoter")
    said = await process("doctor", *file, "--json", env=operator)
    failed = {each["found"]: each["do"] for each in said.json() if each["status"] == "failed"}
    assert (said.code, failed) == (1, {"promoter: 0 at work": "Start a worker: python -m converter.promoter"})
    await stack.start("promoter")

    ill = tmp_path / "ill.env"
    secret = stack.env["S3_SECRET_KEY"]
    broken = (stack.directory / "stack.env").read_text().replace(secret, "wrong")
    ill.write_text(broken.replace(stack.env["FILE_STORE_URL"], "http://127.0.0.1:9"))
    said = await process("doctor", "--env-file", ill, "--json", env=operator | {"NATS_URL": "nats://127.0.0.1:9"})
    failed = {each["part"]: each["do"] for each in said.json() if each["status"] == "failed"}
    assert (said.code, set(failed)) == (1, {"object storage", "file store"}), said.out
    assert all(failed.values())
    assert secret not in said.out + said.err
