"""The vendor's releases, and which of them understand each other's quantised models."""

from __future__ import annotations

import re

from converter.common.conversion import ConversionRefused
from converter.contracts.job import Toolchain

NAME = "kneron"
UNKNOWN = "unknown"
BREAKS = ((0, 20), (0, 23), (0, 30))
"""Releases that do not compile what an older one quantised: 0.20 and 0.23 by the vendor's notes, 0.30 perhaps."""


def toolchain(version: str, *, image_digest: str | None = None) -> Toolchain:
    """What the record of a job says of this toolchain; an empty version is not known."""
    return Toolchain(name=NAME, version=version or UNKNOWN, image_digest=image_digest)


def digest_of(image: str) -> str | None:
    """The sha256 by which `image` is pinned."""
    return image.partition("@sha256:")[2] or None


def check_compilable(made_by: Toolchain | None, version: str) -> None:
    """Refuses a quantised model that this release cannot be trusted to compile.

    Raises:
        ConversionRefused: `bie_incompatible`: another toolchain made it, or a release from across a break.
    """
    if made_by is None or made_by.name != NAME:
        maker = made_by.name if made_by else "nobody known"
        raise ConversionRefused("bie_incompatible", f"the quantised model was made by {maker}, not by {NAME}")
    if made_by.version != (version or UNKNOWN) and _era(made_by.version) != _era(version):
        raise ConversionRefused(
            "bie_incompatible",
            f"the quantised model was made by release {made_by.version}, this is {version or UNKNOWN}; "
            "models do not pass between them",
        )


def _era(version: str) -> int:
    """How many breaks a release comes after; an unknown one stands apart."""
    found = re.match(r"(\d{1,6})\.(\d{1,6})", version)
    release = (int(found[1]), int(found[2])) if found else None
    return -1 if release is None else sum(release >= broken for broken in BREAKS)
