"""Lays the report of a job out as one page of HTML that needs nothing else: no script, no file, no font from elsewhere.

Whatever a client or a model has named is escaped by the template engine, wherever it stands.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from converter.contracts.job import STAGES, Stage
from converter.contracts.report import BieReport, StageReports
from converter.contracts.report.bie import Accuracy
from converter.gateway.http.headers import page_policy
from converter.gateway.report.plots import FAIR_DB, GOOD_DB, Level, Plot, kind, plot, said
from converter.gateway.representation import JobResource

MOST_ROWS = 100
"""Of any list that the model's or the reference set's size decides; the JSON report has all of them."""
WORST_LAYERS = 20
_UNITS = ("bytes", "KiB", "MiB", "GiB")
_KIB = 1024


def _asset(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("utf-8")


STYLE = _asset("page.css")
POLICY = page_policy(STYLE)
"""The Content-Security-Policy that the page is to be sent with."""


def render(job: JobResource, reports: StageReports, unread: Mapping[Stage, str] | None = None) -> str:
    """The page.

    Args:
        job: whose report it is.
        reports: those of the stages that have finished.
        unread: why the report of a finished stage cannot be laid out, in a sentence.
    """
    return _TEMPLATE.render(
        job=job,
        onnx=reports.onnx,
        bie=reports.bie,
        nef=reports.nef,
        finished=[report for stage in STAGES if (report := getattr(reports, stage))],
        unread=unread or {},
        layers=_layer_plot(reports.bie),
        ladder=_ladder_plot(reports.bie),
    ).lstrip()


def _layer_plot(bie: BieReport | None) -> Plot | None:
    """Worst first, as the reference toolchain ranks them; the vendor's figures are ranked here."""
    if bie is None:
        return None
    if bie.accuracy and bie.accuracy.layers:
        return plot([
            Level(label=f"{layer.tensor} ({layer.op})", snr_db=layer.snr_db, exact=layer.exact)
            for layer in bie.accuracy.layers
        ])  # fmt: skip
    ranked = sorted(bie.layers_snr_db.items(), key=lambda item: item[1])
    return plot([Level(label=node, snr_db=snr_db) for node, snr_db in ranked])


def _ladder_plot(bie: BieReport | None) -> Plot | None:
    """The steps that could be made, in the order in which they were tried; none where there was one alone."""
    if bie is None or bie.ladder is None:
        return None
    climb, minimum_db = bie.ladder, bie.quantisation.min_snr_db
    made = [rung for rung in climb.curve if rung.failed is None]
    if len(made) < 2:  # noqa: PLR2004 - a curve has two ends
        return None
    levels = [
        Level(
            label=rung.step,
            snr_db=rung.snr_db,
            # A step without a number is exact, and then it was chosen, or it has only noise.
            exact=rung.step == climb.chosen and is_exact(bie.accuracy),
            below=(rung.step, in_bytes(rung.size_bytes or 0)),
            marked=rung.step == climb.chosen,
        )
        for rung in made
    ]
    return plot(levels, (GOOD_DB if minimum_db is None else minimum_db,))


def in_bytes(count: int) -> str:
    """`count` bytes in the unit that reads best."""
    value, unit = float(count), 0
    while value >= _KIB and unit < len(_UNITS) - 1:
        value, unit = value / _KIB, unit + 1
    return f"{value:.1f} {_UNITS[unit]}" if unit else f"{count} {_UNITS[0]}"


def in_seconds(seconds: float) -> str:
    """A duration with as many digits as it has meaning."""
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def is_exact(accuracy: Accuracy | None) -> bool:
    """Whether no output differs from the float model's."""
    return accuracy is not None and all(output.simulated.exact for output in accuracy.outputs)


def _template() -> Template:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"in_bytes": in_bytes, "in_seconds": in_seconds, "said": said}
    environment.globals |= {
        "STYLE": Markup(STYLE),  # noqa: S704 - our own file, whose digest the policy names
        "STAGES": STAGES,
        "MOST_ROWS": MOST_ROWS,
        "WORST_LAYERS": WORST_LAYERS,
        "GOOD_DB": GOOD_DB,
        "FAIR_DB": FAIR_DB,
        "kind": kind,
        "is_exact": is_exact,
    }
    return environment.from_string(_asset("page.html"))


_TEMPLATE = _template()
