"""The page of a report: whole, escaped, and of use to everybody who opens it."""

from __future__ import annotations

import base64
import hashlib
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

import jobs
import msgspec
import pytest
import reports
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from converter.common.lifecycle import evolve
from converter.contracts.facts import JobCancelled, JobFailed
from converter.contracts.failures import job_error
from converter.contracts.job import JobRecord, Stage
from converter.contracts.report import BieReport, StageReports
from converter.contracts.report.bie import OutputFigures, Quantisation, SpeedEstimate
from converter.contracts.report.nef import NamedModel, NefFacts
from converter.gateway.report.page import MOST_ROWS, POLICY, in_bytes, render
from converter.gateway.representation import JobResource, job_resource

ALL = StageReports(onnx=reports.ONNX, bie=reports.BIE, nef=reports.NEF)
HOSTILE = "</style></title><script>alert('1')</script>\"'{{ 7*7 }}&lt;"
VOID = {"meta", "line", "rect", "br"}


class Page(HTMLParser):
    """The elements of a page, by nesting; fails where they do not close."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.parents: list[list[str]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.parents.append(list(self._open))
        if tag not in VOID or (tag == "rect"):
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.parents.append(list(self._open))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    @property
    def tags(self) -> list[str]:
        return [tag for tag, _ in self.elements]


def record(*stages: Stage, filename: str = "net.onnx") -> JobRecord:
    request = jobs.request()
    fact = replace(jobs.created(), request=replace(request, model=replace(request.model, filename=filename)))
    state = evolve(None, fact)
    for stage in stages:
        state = evolve(evolve(state, jobs.started(stage)), jobs.completed(stage))
    assert isinstance(state, JobRecord)
    return state


def shown(job: JobRecord, found: StageReports = StageReports(), **more: Any) -> Page:  # noqa: ANN401, B008 - frozen
    return Page(render(job_resource(job, None), found, **more))


@pytest.fixture(scope="module")
def whole() -> Page:
    return shown(record(*Stage), ALL)


def test_it_says_all_that_the_report_has(whole: Page):
    for fact in (
        "Poor: 9.5 dB",
        "3 of 9 nodes have operators",
        "CPU, unless rewritten",
        "not in the vendor's table",
        "the opset cannot be raised",
        "Chosen: int16, the narrowest step",
        "101 reference files, 100 of them distinct",
        "broken.png",
        reports.SHA,
        "1 of 10",
        "Landlock (ABI 6)",
        "onnx 1.23.2",
        "90.0 MiB",
        "passed",
        "N \N{MULTIPLICATION SIGN} 3 \N{MULTIPLICATION SIGN} ? \N{MULTIPLICATION SIGN} 32",
    ):
        assert fact in whole.text, fact


def test_a_figure_that_is_not_known_is_no_nought():
    source = replace(reports.ONNX.source, macs=None, parameters=0)
    page = shown(record(*Stage), replace(ALL, onnx=replace(reports.ONNX, source=source)))
    assert "Parameters0500,000" in "".join(page.text.split())
    assert "Multiply-accumulates\N{EN DASH}70,000,000" in "".join(page.text.split())


def test_it_needs_nothing_else_and_runs_nothing(whole: Page):
    assert not {"script", "link", "img", "iframe", "object", "form", "base"} & set(whole.tags)
    for tag, attributes in whole.elements:
        assert not {"style", "src", "href", "srcset"} & set(attributes), tag
        assert not [name for name in attributes if name.startswith("on")]


def test_its_policy_allows_its_own_style_alone():
    text = render(job_resource(record(*Stage), None), ALL)
    style = text.partition("<style>")[2].partition("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in POLICY
    assert "default-src 'none'" in POLICY
    assert "unsafe" not in POLICY


def test_headings_tables_and_plots_tell_what_they_are(whole: Page):
    levels = [int(tag[1]) for tag in whole.tags if tag in {"h1", "h2", "h3"}]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    places = {tag: [index for index, each in enumerate(whole.tags) if each == tag] for tag in ("table", "svg")}
    assert len(places["svg"]) == 2
    assert all(whole.tags[place + 1] == "caption" for place in places["table"])
    for place in places["svg"]:
        named = (whole.elements[place][1]["aria-labelledby"] or "").split()
        assert [whole.elements[place + offset][1].get("id") for offset in (1, 2)] == named
    assert whole.elements[0] == ("html", {"lang": "en"})


OPEN = {"libraries", "seconds", "float_fallback_operators", "as_written"}
"""What is keyed by names of a model's or a library's."""
CLOSED = {"stage", "verdict", "platform", "origin", "layout", "channel_order", "method"}
CLOSED |= {"sha256", "set_sha256", "bie_sha256"}


def spoilt(value: Any, ending: str, key: str = "") -> Any:  # noqa: ANN401 - any JSON
    """Every name and text in a report with `ending`, but for those that are of a closed set."""
    if isinstance(value, dict):
        return {f"{name}{ending if key in OPEN else ''}": spoilt(each, ending, name) for name, each in value.items()}
    if isinstance(value, list):
        return [spoilt(each, ending, key) for each in value]
    return f"{value}{ending}" if isinstance(value, str) and key not in CLOSED else value


def with_names(ending: str) -> Page:
    """The page where everything that can be named is named so."""
    found = msgspec.convert(spoilt(msgspec.to_builtins(ALL), ending), StageReports)
    return shown(record(*Stage, filename=f"net.onnx{ending}"), found)


def structure(page: Page) -> list[tuple[str, set[str]]]:
    return [(tag, set(attributes)) for tag, attributes in page.elements]


PLAIN = structure(with_names("x"))
MARKUP = ("<", ">", '"', "'", "&", "/", "=", "`", "{{", "}}", "{%", "%}", "<!--", "-->", "]]>", "</title>", "</style>")
MARKUP += ("<script>", "<svg onload=", "&lt;", "&#60;", "javascript:", "\\", "\0", "\n", "\x1b[2J", "\u202e", "\ufeff")


@given(st.lists(st.sampled_from(MARKUP) | st.text(min_size=1, max_size=4), min_size=1, max_size=8).map("".join))
@settings(max_examples=50)
def test_no_text_at_all_changes_what_the_page_is_made_of(text: str):
    assert structure(with_names(text)) == PLAIN


def test_no_name_of_a_client_or_a_model_becomes_part_of_the_page(whole: Page):
    page = with_names(HOSTILE)
    assert page.tags == whole.tags
    assert page.text.count(HOSTILE) > 30


def test_a_hostile_failure_is_escaped_too():
    job = record(Stage.ONNX)
    error = job_error("conversion_failed", HOSTILE, stage=Stage.BIE, node=HOSTILE, op=HOSTILE, evidence=HOSTILE)
    failed = evolve(job, JobFailed(at=jobs.AT, error=error))
    assert isinstance(failed, JobRecord)
    page = shown(failed, StageReports(onnx=reports.ONNX))
    assert "script" not in page.tags
    assert page.text.count(HOSTILE) == 4
    assert error.hint in page.text
    assert error.code in page.text


@pytest.mark.parametrize(
    ("job", "words"),
    [
        (record(), "Queued"),
        (evolve(record(Stage.ONNX), jobs.started(Stage.BIE)), "Running"),
        (evolve(record(), JobCancelled(at=jobs.AT)), "Cancelled"),
        (evolve(evolve(evolve(None, jobs.created(last_stage=Stage.ONNX)), jobs.started(Stage.ONNX)),
                jobs.completed(Stage.ONNX)), "Nothing was quantised"),
    ],
)  # fmt: skip
def test_a_job_that_has_no_accuracy_says_why(job: JobRecord, words: str):
    assert words in shown(job).text


def test_a_report_that_cannot_be_shown_is_told(whole: Page):
    page = shown(record(*Stage), StageReports(onnx=reports.ONNX), unread={Stage.BIE: "it has 9 bytes."})
    assert "The report of the stage bie is not shown: it has 9 bytes." in page.text


def vendors() -> BieReport:
    """As the vendor's adapter reports: an estimate of the speed, layers by node, no scheme of ours."""
    accuracy = reports.BIE.accuracy
    assert accuracy is not None
    outputs = tuple(
        OutputFigures(
            name=output.name,
            simulated=output.simulated,
            channels=1,
            collapsed=True,
            collapsed_channels=(),
            collapsed_channels_count=1,
        )
        for output in accuracy.outputs
    )
    return replace(
        reports.BIE,
        quantisation=Quantisation(keywords={"percentage": 1.0}, threads=4),
        ladder=None,
        accuracy=replace(accuracy, layers=(), outputs=outputs),
        layers_snr_db={"conv_9": 31.5, "conv_1": 4.25},
        speed=SpeedEstimate(scope="the NPU's part alone", nodes=4, cpu_nodes=("softmax",), fps=21.352),
    )


def test_a_signed_statement_is_named_where_there_is_one(whole: Page):
    job = record(*Stage)
    state = job.stages[Stage.NEF]
    assert state.artifact is not None
    signed = replace(state.artifact, filename=f"net.nef.sigstore{HOSTILE}")
    page = shown(replace(job, stages={**job.stages, Stage.NEF: replace(state, provenance=signed)}), ALL)
    assert f"stated and signed in net.nef.sigstore{HOSTILE}" in page.text
    assert "script" not in page.tags
    assert "signed in" not in whole.text


def test_the_vendors_figures_are_shown():
    facts = NefFacts(
        platform="kdp720",
        target=1,
        chips=("720",),
        schema="1.0.0",
        encryption_mode=0,
        compiler_version="c",
        toolchain_version="0.25.0",
        models=(NamedModel(name="net", id=40000, version="0001"),),
        models_bytes=2048,
    )
    nef = replace(reports.NEF, self_test=None, nef=facts)
    onnx = replace(reports.ONNX, parity=None, passes=(), opset_conversion=None, notice=None)
    page = shown(record(*Stage), StageReports(onnx=onnx, bie=vendors(), nef=nef))
    for fact in ("21.4 frames per second", "1 nodes on the CPU", "conv_14.2 dB", "net (id 40000", "percentage", "all"):
        assert fact in page.text, fact
    assert page.text.index("conv_1") < page.text.index("conv_9")
    assert "could not be measured" in shown(record(*Stage), StageReports(bie=replace(vendors(), accuracy=None))).text


def test_long_lists_are_cut_and_say_so():
    table = reports.ONNX.operators
    rows = tuple(replace(table.operators[0], op=f"Op{index}") for index in range(MOST_ROWS + 50))
    onnx = replace(reports.ONNX, operators=replace(table, operators=rows))
    page = shown(record(*Stage), StageReports(onnx=onnx))
    assert f"The first {MOST_ROWS} of {MOST_ROWS + 50}" in page.text
    assert f"Op{MOST_ROWS - 1}" in page.text
    assert f"Op{MOST_ROWS}" not in page.text


def test_sizes_read_well():
    assert [in_bytes(count) for count in (0, 1023, 1024, 1536 * 1024, 5 << 40)] == [
        "0 bytes", "1023 bytes", "1.0 KiB", "1.5 MiB", "5120.0 GiB",
    ]  # fmt: skip


def test_the_same_job_gives_the_same_page():
    resource: JobResource = job_resource(record(*Stage), None)
    assert render(resource, ALL) == render(resource, ALL)
