"""How long a job waits for each of its three stages when nothing else is going on.

A job is handed in half a second after the last has ended, twenty times a round. A wait is from handing it in, or from
the end of the stage before, to the beginning of the stage's work, by the clock of the machine; it includes every write
and answer in between. For the converter (the runner of production, see `pipeline`) those are the event that the last
stage has completed, its delivery to a worker whose request for one is waiting, and the event that the stage has
started; nothing polls.
"""

from __future__ import annotations

from functools import partial

from harness import Row, Target
from pipeline import PICKUP_MAX_MS, PICKUP_P50_MS, QUIET, Durability
from pipeline_peers import PICKED_UP
from pipeline_sides import CONVERTER, sides

ROW = Row(
    name="pickup",
    title="The pick-up of a job after quiet",
    text=__doc__,
    sides=partial(sides, Durability.POWER, (CONVERTER._replace(load=QUIET), PICKED_UP)),
    targets=(
        Target(PICKUP_P50_MS, CONVERTER.name, at_most=10.0),
        Target(PICKUP_MAX_MS, CONVERTER.name, at_most=50.0),
    ),
)
