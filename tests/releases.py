"""Former releases of the services, to run beside this one: their sources, which go before ours on `PYTHONPATH`.

`tests/releases/` keeps each as it was. This records the one at COMMIT:

    git archive COMMIT contracts/src libs/{common,toolchain}/src 'services/*/src/*' | xz -9e \
        > tests/releases/COMMIT.tar.xz
"""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

OLDEST = Path(__file__).parent / "releases" / "39c859c.tar.xz"
"""The first release whose events are on record in `contracts/recorded/`."""


def unpacked(release: Path, directory: Path) -> dict[str, str]:
    """The variables of a service that is to run as `release`, which is unpacked into `directory`."""
    with tarfile.open(release) as archive:
        archive.extractall(directory, filter="data")
    sources = sorted(str(each) for each in directory.glob("**/src"))
    return {"PYTHONPATH": os.pathsep.join(sources)}
