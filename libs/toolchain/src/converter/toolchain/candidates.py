"""Which data a model is calibrated with, and which is kept back to judge the result."""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from msgspec import Struct, field

from converter.common.conversion import ConversionRefused
from converter.toolchain.images import Unreadable
from converter.toolchain.samples import Member, ReferenceSet, Skipped, sample_of, synthetic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from converter.toolchain.models import TensorSpec
    from converter.toolchain.preprocessing import Preprocessing
    from converter.toolchain.samples import Sample

ENOUGH_TO_HOLD_OUT = 20
HELD_OUT_EVERY = 5
MOST_JUDGED = 64
"""How many samples are compared at the most; the figures hardly change beyond."""
_SYNTHETIC_CALIBRATION, _SYNTHETIC_HELD_OUT = 32, 8


class Candidate(Struct, frozen=True, kw_only=True):
    """One sample that can be loaded. `load` raises Unreadable, or ConversionRefused where the data does not fit."""

    index: int
    name: str
    load: Callable[[], Sample]


class Candidates(Struct, kw_only=True):
    """A reference set, divided. Files of the same bytes count once; `skipped` grows as files prove unreadable."""

    origin: Literal["reference_set", "synthetic"]
    count: int
    unique: int
    set_sha256: str | None
    calibration: list[Candidate]
    held_out: list[Candidate]
    skipped: dict[int, Skipped] = field(default_factory=dict)

    def readable(self, candidates: Sequence[Candidate]) -> Iterator[tuple[str, Sample]]:
        """Name and sample of each candidate, one loaded at a time; those that cannot be read are noted and left out.

        Raises:
            ConversionRefused: `calibration_unreadable`: none could be read.
        """
        found = False
        for candidate in candidates:
            try:
                sample = candidate.load()
            except Unreadable as error:
                self.skipped[candidate.index] = Skipped(index=candidate.index, name=candidate.name, reason=str(error))
            else:
                found = True
                yield candidate.name, sample
        if not found:
            # All of them stand for the whole set, with what is there twice or is damaged in the archive.
            tried = self.count if len(candidates) == self.unique else len(candidates)
            raise ConversionRefused(
                "calibration_unreadable",
                f"none of the {tried} reference files could be read",
                evidence=next((f"{skipped.name}: {skipped.reason}" for skipped in self._in_order()), None),
            )

    def _in_order(self) -> list[Skipped]:
        return [self.skipped[index] for index in sorted(self.skipped)]

    def record(self, used: Sequence[str]) -> dict[str, Any]:
        """As the report states it; `used` are the names of those that the model was calibrated with."""
        return {
            "origin": self.origin,
            "count": self.count,
            "unique": self.unique,
            "used": len(used),
            "used_names": list(used),
            "held_out": len(self.held_out),
            "set_sha256": self.set_sha256,
            "skipped": [{"name": skipped.name, "reason": skipped.reason} for skipped in self._in_order()],
        }


@contextmanager
def drawn(
    reference_set: Path | None, inputs: Sequence[TensorSpec], preprocessing: Preprocessing | None
) -> Iterator[Candidates]:
    """The candidates in `reference_set`, which stays open meanwhile; without one, made-up data.

    Of 20 distinct files or more, each fifth is held out: the model is judged on it and not calibrated with it.

    Raises:
        ConversionRefused: `calibration_unreadable`: the set is no archive.
    """
    if reference_set is None:
        yield _made_up(inputs, preprocessing)
        return
    with ReferenceSet(reference_set) as files:
        skipped: dict[int, Skipped] = {}
        distinct: dict[str, Member] = {}
        digests: list[str] = []
        for member in files.members():
            if isinstance(member, Member):
                digests.append(member.sha256)
                distinct.setdefault(member.sha256, member)
            else:
                skipped[member.index] = member
        every = [_candidate(files, member, inputs, preprocessing) for member in distinct.values()]
        enough = len(every) >= ENOUGH_TO_HOLD_OUT
        held_out = every[HELD_OUT_EVERY - 1 :: HELD_OUT_EVERY] if enough else []
        kept_back = {candidate.index for candidate in held_out}
        yield Candidates(
            origin="reference_set",
            count=len(files),
            unique=len(distinct),
            set_sha256=hashlib.sha256("\n".join(sorted(digests)).encode()).hexdigest(),
            calibration=[candidate for candidate in every if candidate.index not in kept_back],
            held_out=held_out,
            skipped=skipped,
        )


def _candidate(
    files: ReferenceSet, member: Member, inputs: Sequence[TensorSpec], preprocessing: Preprocessing | None
) -> Candidate:
    return Candidate(
        index=member.index,
        name=member.name,
        load=lambda: sample_of(files.read(member.index), inputs, preprocessing),
    )


def _made_up(inputs: Sequence[TensorSpec], preprocessing: Preprocessing | None) -> Candidates:
    total = _SYNTHETIC_CALIBRATION + _SYNTHETIC_HELD_OUT
    every = [
        Candidate(index=seed, name=f"synthetic-{seed}", load=partial(synthetic, inputs, preprocessing, seed))
        for seed in range(total)
    ]
    return Candidates(
        origin="synthetic",
        count=0,
        unique=0,
        set_sha256=None,
        calibration=every[:_SYNTHETIC_CALIBRATION],
        held_out=every[_SYNTHETIC_CALIBRATION:],
    )
