"""One conversion's dealings with the vendor's toolchain: its directory, its steps, and what comes out."""

from __future__ import annotations

import shutil
import stat
from pathlib import Path
from typing import Any

from converter.common.conversion import Conversion, ConversionRefused, ConversionTask, Progress
from converter.kneron import release
from converter.kneron.deployment import deployed
from converter.kneron.run import Result, run_step
from converter.toolchain.reference import artifact_name
from converter.toolchain.reporting import target_record
from converter.toolchain.steps import Steps

BIE_MEDIA_TYPE, NEF_MEDIA_TYPE = "application/vnd.kneron-converter.bie", "application/vnd.kneron-converter.nef"
_MOST_ARTIFACT_BYTES = 2 << 30


class Session:
    """Gives the toolchain a directory of its own below the task's. `directory` is where requests' files are.

    Raises:
        KeyError: this process was not started for the vendor's toolchain.
    """

    def __init__(self, task: ConversionTask, progress: Progress) -> None:
        self.task, self.progress = task, progress
        self.steps = Steps(progress)
        self.deployment = deployed()
        self.directory = task.workdir / "toolchain"
        self.directory.mkdir()
        self.version = ""

    def ask(self, step: str, *, at: float, until: float, **request: Any) -> Result:  # noqa: ANN401 - JSON
        """Have the driver do `step`, which is the stage's part from `at` to `until`.

        Raises:
            ConversionRefused: it failed; see `run_step`.
            MemoryError: it was killed for want of memory.
        """

        def progress(fraction: float, activity: str) -> None:
            self.progress(at + (until - at) * min(max(fraction, 0.0), 1.0), activity)

        whole = {"step": step, "home": self.deployment.home, **request}
        with self.steps.step(step, at=at, code="conversion_failed", activity=f"starting the toolchain ({step})"):
            result = run_step(self.deployment, self.directory, whole, progress)
            self.version = result.version
            self.steps.say(f"release {result.version or release.UNKNOWN}")
        return result

    def made(self, name: str) -> Path:
        """The file `name` in the directory, made under the vendor's hands: plain, not empty, and not endless.

        Raises:
            ConversionRefused: `artifact_invalid`.
        """
        path = self.directory / name
        try:
            found = path.lstat()
        except OSError as error:
            raise ConversionRefused("artifact_invalid", f"the toolchain made no {name}") from error
        if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
            raise ConversionRefused("artifact_invalid", f"the toolchain's {name} is no file of its own")
        if not 0 < found.st_size <= _MOST_ARTIFACT_BYTES:
            raise ConversionRefused("artifact_invalid", f"the toolchain's {name} has {found.st_size} bytes")
        return path

    def deliver(self, name: str, suffix: str) -> Path:
        """Copies `name` out of the directory, under the name that the client gets it by."""
        target = self.task.workdir / artifact_name(self.task.filename, suffix)
        shutil.copyfile(self.made(name), target)
        return target

    def conversion(self, artifact: Path, media_type: str, report: dict[str, Any]) -> Conversion:
        """What the stage gives back; `report` is completed with what all of them state."""
        toolchain = release.toolchain(self.version, image_digest=release.digest_of(self.deployment.image))
        self.progress(1.0, "done")
        return Conversion(
            artifact=artifact,
            filename=artifact.name,
            media_type=media_type,
            toolchain=toolchain,
            report={
                **report,
                "toolchain": {"name": toolchain.name, "version": toolchain.version},
                "target": target_record(self.task),
                "warnings": list(self.steps.warnings),
                "timings": self.steps.timings(),
            },
            warnings=tuple(self.steps.warnings),
        )
