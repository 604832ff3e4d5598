"""How this installation runs the vendor's toolchain: its Python here, or its image with docker.

The converter's process starts with an empty environment; what it has to know travels in one variable of it.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
from msgspec import Struct

from converter.common.isolation import Confinement
from converter.common.settings import StageSettings
from converter.contracts.job import Toolchain
from converter.kneron import driver, release

VARIABLE = "KNERON_DEPLOYMENT"
_IMAGE_HOME, _IMAGE_PYTHON = "/workspace", "/workspace/miniconda/envs/onnx1.13/bin/python"
_MOUNT = "/docker_mount"
_MOST_PROCESSES = 512
DRIVER = "driver.py"


class Deployment(Struct, frozen=True, kw_only=True):
    """Exactly one of `python` and `image` is set."""

    python: str = ""
    image: str = ""
    home: str = _IMAGE_HOME
    threads: int = 4
    memory_mb: int = 4096
    docker_host: str = ""

    @property
    def where(self) -> str:
        """What failed, when it cannot be started."""
        return self.image or self.python

    def command(self, job: Path) -> list[str]:
        """Runs `job`/driver.py in `job`, /docker_mount in a container, with this process's pipes."""
        if self.python:
            return [self.python, DRIVER]
        # Root in the container writes into a directory of ours: of root's powers it keeps those over files.
        return [
            "docker", "run", "--rm", "--interactive", "--pull", "never", "--network", "none",
            "--volume", f"{job}:{_MOUNT}", "--workdir", _MOUNT,
            "--memory", f"{self.memory_mb}m", "--memory-swap", f"{self.memory_mb}m",
            "--pids-limit", f"{_MOST_PROCESSES}",
            "--cap-drop", "ALL", "--cap-add", "CHOWN", "--cap-add", "DAC_OVERRIDE", "--cap-add", "FOWNER",
            "--security-opt", "no-new-privileges",
            "--env", f"PATH={Path(_IMAGE_PYTHON).parent}:/usr/local/bin:/usr/bin:/bin",
            "--entrypoint", _IMAGE_PYTHON, self.image, DRIVER,
        ]  # fmt: skip

    def environment(self) -> dict[str, str]:
        """What the command starts with."""
        inherited = os.environ.get("PATH", os.defpath)
        kept = {name: os.environ[name] for name in ("HOME", "TMPDIR", "LANG") if name in os.environ}
        if self.python:  # its programs call `python`
            return {**kept, "PATH": f"{Path(self.python).parent}:{inherited}"}
        return {**kept, "PATH": inherited, "DOCKER_HOST": self.docker_host}


def confinement(settings: StageSettings) -> Confinement:
    """What the converters may reach: the vendor's programs, or the engine that runs its image."""
    contained = settings.kneron_python is None
    deployment = Deployment(
        python=str(settings.kneron_python or ""),
        image=settings.kneron_image,
        home=_IMAGE_HOME if contained else str(settings.kneron_home),
        threads=settings.kneron_threads,
        memory_mb=settings.stage_memory_mb,
        docker_host=settings.docker_host if contained else "",
    )
    environment = {VARIABLE: msgspec.json.encode(deployment).decode()}
    if settings.kneron_python is None:
        return Confinement(may_execute=True, may_open_sockets=True, environment=environment)
    return Confinement(
        readable=(settings.kneron_home, settings.kneron_python.parent),
        writable=tuple(map(Path, settings.kneron_writable_dirs.split(":"))),
        may_execute=True,
        environment=environment,
    )


def identity(settings: StageSettings) -> Toolchain | None:
    """Which toolchain would convert: the image by its digest, or the release that stands in `KNERON_HOME`.

    Without a release nobody can tell two installations apart.
    """
    if settings.kneron_python is None:
        return release.toolchain("", image_digest=release.digest_of(settings.kneron_image))
    version = driver.version(str(settings.kneron_home))
    return release.toolchain(version) if version else None


def deployed() -> Deployment:
    """The deployment that this process was started for.

    Raises:
        KeyError: it was started for none.
    """
    return msgspec.json.decode(os.environ[VARIABLE], type=Deployment)
