"""Breaks one rule of the services at a time, and tells which tests notice: `python tests/chaos/teeth.py` (`make soak`).

Each mutant is a copy of one source tree that Python finds before the installed one, in the tests and in every service
that they start. It ends with 1 when a mutant lives, or when a change does not fit the source any more.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
COMMON, GATEWAY, PROMOTER = "libs/common", "services/api-gateway", "services/promoter"
FOUND = 1
"""What pytest ends with when tests failed."""


class Mutant(NamedTuple):
    """A rule that is broken: `before` becomes `after` in a module of a distribution; `tests` should notice."""

    rule: str
    distribution: str
    module: str
    before: str
    after: str
    tests: tuple[str, ...]


MUTANTS = (
    Mutant(
        "what an event expects to follow is not told",
        COMMON,
        "common/eventlog.py",
        "headers=headers, expected=expected, expected_on=root)",
        "headers=headers)",
        ("tests/integration/test_eventlog.py",),
    ),
    Mutant(
        "events have no message id",
        COMMON,
        "common/eventlog.py",
        '"Nats-Msg-Id": event_id, ',
        "",
        ("tests/integration/test_eventlog.py",),
    ),
    Mutant(
        "a message is acknowledged before it is handled",
        COMMON,
        "common/consumer.py",
        "                await handle(delivery)\n",
        "                await delivery.ack()\n                await handle(delivery)\n",
        ("tests/integration/test_consumer.py",),
    ),
    Mutant(
        "a worker does not tell that it is alive",
        COMMON,
        "common/consumer.py",
        "await delivery.in_progress()",
        "pass",
        ("tests/integration/test_consumer.py",),
    ),
    Mutant(
        "an attempt does not look whether it was overtaken",
        COMMON,
        "common/stage/policy.py",
        "return here.worker == worker and here.attempt == attempt",
        "return True",
        ("tests/integration/stage/test_runner.py",),
    ),
    Mutant(
        "an end that was not announced is left so",
        COMMON,
        "common/stage/policy.py",
        "return Announce(missing) if missing else Settled()",
        "return Settled()",
        ("tests/e2e/test_failpoints.py", "-k", "announce"),
    ),
    Mutant(
        "what is no event is acknowledged like work that is done",
        COMMON,
        "common/stage/runner.py",
        'raise Rejected(f"no event: {error}") from error',
        "return",
        ("tests/chaos/test_messages.py",),
    ),
    Mutant(
        "a message is read however deep it is nested",
        COMMON,
        "common/eventlog.py",
        "    except RecursionError as error:",
        "    except ZeroDivisionError as error:",
        ("tests/chaos/test_messages.py",),
    ),
    Mutant(
        "a model may take one worker more with it",
        COMMON,
        "common/stage/policy.py",
        "if here.charged >= max_attempts:",
        "if here.charged > max_attempts:",
        ("tests/chaos/test_poison.py",),
    ),
    Mutant(
        "a gateway that is told to stop waits for nothing",
        GATEWAY,
        "gateway/serving.py",
        "timeout_graceful_shutdown=grace_s",
        "timeout_graceful_shutdown=0",
        ("tests/chaos/test_shutdown.py",),
    ),
    Mutant(
        "a promotion goes on past its deadline",
        PROMOTER,
        "promoter/upload.py",
        "if self._upload.remaining_s < self._answer_s:",
        "if False:",
        ("tests/integration/promoter/test_upload.py",),
    ),
    Mutant(
        "an artifact is promoted whatever its digest",
        PROMOTER,
        "promoter/upload.py",
        "if (self._size_bytes, self._digest.hexdigest()) != (artifact.size_bytes, artifact.sha256):",
        "if False:",
        ("tests/integration/promoter/test_upload.py",),
    ),
    Mutant(
        "a lock is claimed without a look at the job that holds it",
        COMMON,
        "common/users.py",
        "                if pointer and (held := await self._held_by(pointer)):\n                    raise held\n",
        "",
        ("tests/integration/test_users.py",),
    ),
    Mutant(
        "the digest of what is stored is not recorded",
        COMMON,
        "common/storage/store.py",
        "sha256=self._digest.hexdigest()\n",
        "sha256=hashlib.sha256().hexdigest()\n",
        ("tests/integration/storage/test_store.py",),
    ),
    Mutant(
        "the janitor takes active jobs, too",
        GATEWAY,
        "gateway/janitor/rules.py",
        "or state.active or moment",
        "or moment",
        ("tests/unit/gateway/test_janitor_rules.py",),
    ),
)


def fits(mutant: Mutant) -> bool:
    """Whether the rule still stands where it would be broken, once."""
    module = ROOT / mutant.distribution / "src" / "converter" / mutant.module
    return module.is_file() and module.read_text().count(mutant.before) == 1


def bites(mutant: Mutant, directory: Path) -> bool:
    """Whether the mutant's tests fail."""
    if not fits(mutant):
        raise SystemExit(f"{mutant.module} has changed: {mutant.before!r} is not there once")
    tree = shutil.copytree(ROOT / mutant.distribution / "src", directory / "src")
    module = tree / "converter" / mutant.module
    module.write_text(module.read_text().replace(mutant.before, mutant.after))
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-n", "0", f"--basetemp={directory / 'run'}", *mutant.tests]
    environ = os.environ | {"PYTHONPATH": str(tree)}
    return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, check=False).returncode == FOUND


def main() -> None:
    """Try every mutant."""
    alive = 0
    for mutant in MUTANTS:
        with tempfile.TemporaryDirectory() as directory:
            found = bites(mutant, Path(directory))
        alive += not found
        print(f"{'found' if found else 'LIVES':6} {mutant.rule:55} {' '.join(mutant.tests)}", flush=True)
    sys.exit(alive > 0)


if __name__ == "__main__":
    main()
