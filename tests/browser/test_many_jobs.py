"""A list that stays quick with many jobs in it, and views that change under somebody's hands."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio
from jobs import AT, created, request, started
from msgspec.structs import replace
from playwright.async_api import Page, expect

from converter.common.bus import Bus
from converter.common.eventlog import JobLog
from converter.common.identifiers import uuid7
from converter.common.settings import NatsSettings
from converter.contracts.facts import JobCancelled, JobCreated
from converter.contracts.job import Stage
from converter.devstack.stack import Stack

from .visit import SLOW_MS

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]

COUNT = 500
PAGE = 50


@pytest.fixture(scope="module")
def workers() -> Mapping[str, int]:
    """Nobody who would work on the jobs."""
    return {"onnx": 0, "bie": 0, "nef": 0, "promoter": 0}


@asynccontextmanager
async def log_of(stack: Stack, service: str) -> AsyncIterator[JobLog]:
    """The log, as a service writes it."""
    seed_file = stack.directory / "nats-users" / f"{service}.seed"
    settings = NatsSettings(nats_url=stack.variables["NATS_URL"], nats_nkey_seed_file=seed_file)
    async with await Bus.connect(settings, name=service) as bus:
        yield JobLog(bus, "test")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def job_log(stack: Stack) -> AsyncIterator[JobLog]:
    async with log_of(stack, "api-gateway") as log:
        yield log


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage_log(stack: Stack) -> AsyncIterator[JobLog]:
    async with log_of(stack, "stage-onnx") as log:
        yield log


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def seeded(job_log: JobLog) -> list[str]:
    """The ids of many jobs, oldest first: each tenth is cancelled, each fifth is for the 530."""
    ids: list[str] = []

    async def append(number: int, job_id: str) -> None:
        asked = request(client_id=f"client-{number % 3}", user_id=f"user-{number}")
        model = replace(asked.model, filename=f"model-{number:03d}.onnx")
        asked = replace(asked, model=model, platform="530" if number % 5 == 0 else "720")
        created = JobCreated(at=AT, job_id=job_id, request=asked, expires_at=AT)
        await job_log.append(job_id, lambda _: created)
        if number % 10 == 0:
            await job_log.append(job_id, lambda _: JobCancelled(at=AT))

    for first in range(0, COUNT, PAGE):
        batch = sorted(uuid7() for _ in range(PAGE))
        await asyncio.gather(*(append(first + number, job_id) for number, job_id in enumerate(batch)))
        ids += batch
        await asyncio.sleep(0.002)  # the next batch's ids are of a later millisecond
    return ids


async def test_pages_and_filters_find_every_job(page: Page, seeded: list[str]):
    await page.goto("/")
    rows = page.locator("table.jobs tbody tr")
    await expect(rows).to_have_count(PAGE, timeout=SLOW_MS)
    found: list[str] = []
    while True:
        found += await rows.locator("code").all_inner_texts()
        older = page.get_by_role("link", name="Older")
        if not await older.count():
            break
        await older.click()
        await expect(rows.locator("code").first).not_to_have_text(found[-PAGE], timeout=SLOW_MS)
        await expect(rows).to_have_count(PAGE)
        await expect(page.get_by_role("link", name="Newest")).to_be_visible()
    assert found == seeded[::-1]

    await page.get_by_role("link", name="Newest").click()
    await page.get_by_label("Status").select_option("cancelled")
    await expect(page.get_by_text("50 jobs")).to_be_visible(timeout=SLOW_MS)
    await page.get_by_label("Client").fill("client-1")
    await page.get_by_label("Search").fill("model-1")
    await expect(rows).to_have_count(4, timeout=SLOW_MS)
    await page.reload()
    await expect(page.get_by_label("Status")).to_have_value("cancelled")
    await expect(rows).to_have_count(4, timeout=SLOW_MS)
    await page.get_by_label("Search").fill(seeded[10])
    await expect(page.get_by_role("link", name="model-010.onnx")).to_be_visible(timeout=SLOW_MS)


async def test_rows_follow_their_jobs_and_keep_focus_and_choice(page: Page, job_log: JobLog, seeded: list[str]):
    await page.goto("/")
    row = page.locator("tr", has_text=seeded[-1])
    choice = row.get_by_role("checkbox")
    await choice.check(timeout=SLOW_MS)
    await expect(row).to_contain_text("Queued")
    newest = uuid7()
    await job_log.append(newest, lambda _: created(newest))
    await job_log.append(seeded[-1], lambda _: JobCancelled(at=AT))
    await expect(row).to_contain_text("Cancelled", timeout=SLOW_MS)
    await expect(page.locator("tr", has_text=newest)).to_be_visible(timeout=SLOW_MS)
    await expect(choice).to_be_focused()
    await expect(choice).to_be_checked()


async def test_jobs_of_two_pages_are_chosen_and_a_third_is_not(page: Page, seeded: list[str]):
    await page.goto("/")
    choices = page.locator("table.jobs").get_by_role("checkbox")
    rows = page.locator("table.jobs tbody tr")
    await choices.first.check(timeout=SLOW_MS)
    first = await rows.first.locator("code").inner_text()
    bar = page.get_by_role("group", name="Chosen jobs")
    await expect(bar).to_contain_text("choose one more")
    await page.get_by_role("link", name="Older").click()
    await expect(page.get_by_role("link", name="Newest")).to_be_visible(timeout=SLOW_MS)
    await choices.first.check()
    second = await rows.first.locator("code").inner_text()
    await choices.nth(1).click()
    await expect(choices.nth(1)).not_to_be_checked()
    await expect(bar).to_contain_text("let one go first")
    await bar.get_by_role("button", name="Compare").click()
    await page.wait_for_url(f"**/#/compare?a={first}&b={second}")
    await page.go_back()
    await expect(choices.first).to_be_checked(timeout=SLOW_MS)
    await bar.get_by_role("button", name="Clear").click()
    await expect(choices.first).not_to_be_checked()
    await expect(bar).to_be_hidden()
    await expect(page.get_by_role("region", name="Jobs")).to_be_focused()


async def test_a_click_and_a_selection_outlive_an_event_of_the_job(page: Page, job_log: JobLog, stage_log: JobLog):
    job_id = uuid7()
    await job_log.append(job_id, lambda _: created(job_id))
    await page.goto(f"/#/jobs/{job_id}")
    await page.get_by_role("button", name="Cancel…").hover(timeout=SLOW_MS)
    await page.evaluate("getSelection().selectAllChildren(document.querySelector('.facts'))")
    selected = await page.evaluate("String(getSelection())")
    await page.mouse.down()
    await page.evaluate("getSelection().selectAllChildren(document.querySelector('.facts'))")
    await stage_log.append(job_id, lambda _: started(Stage.ONNX))
    await expect(page.locator(".job-heading .status")).to_contain_text("Running", timeout=SLOW_MS)
    assert await page.evaluate("String(getSelection())") == selected
    await page.mouse.up()
    await expect(page.get_by_role("dialog")).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("button", name="Cancel…")).to_be_focused()


async def test_an_update_keeps_what_is_open_and_goes_with_what_has_an_id(page: Page):
    await page.goto("/")
    assert await page.evaluate(
        """async () => {
          const { h, update } = await import("/assets/dom.js");
          const host = h("div");
          document.body.append(host);
          const figure = (id, text) => h("figure", { id }, h("details", {}, h("summary", {}, text), text));
          const button = (text, click) => h("button", { type: "button", on: { click } }, text);
          const clicks = [];
          update(host, figure("b", "one"), button("Go", () => clicks.push("first")), h("p", { class: "x" }, "old"));
          const [kept, , said] = host.children;
          kept.firstChild.open = true;
          kept.querySelector("summary").focus();
          const stop = button("Stop", () => clicks.push("second"));
          update(host, figure("a", "new"), figure("b", "two"), stop, h("p", {}, "new"));
          host.querySelector("button").click();
          return [
            host.children[1] === kept && kept.firstChild.open && kept.contains(document.activeElement),
            host.querySelector("#a details").open,
            host.children[3] === said && !said.hasAttribute("class"),
            [...host.children].map((each) => each.innerText).join(" "),
            clicks.join(),
          ];
        }"""
    ) == [True, False, True, "new two\ntwo Stop new", "second"]


async def test_a_log_keeps_a_selection_and_lets_somebody_scroll_up_while_lines_come(page: Page):
    await page.goto("/")
    assert await page.evaluate(
        """async () => {
          const { LogPanel } = await import("/assets/job/log.js");
          const frame = () => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
          const panel = new LogPanel("/whole");
          document.body.append(panel.element);
          let count = 0;
          const more = (lines) => {
            for (let each = 0; each < lines; each++) panel.add({ stage: "bie", attempt: 1, line: `line ${count++}` });
          };
          more(1_990);
          await frame();
          const end = () => panel.list.scrollHeight - panel.list.clientHeight - panel.list.scrollTop < 2;
          const followed = end();
          getSelection().selectAllChildren(panel.list.children[1_000]);
          panel.list.scrollTop -= 200;
          more(20); // the first ten go
          await frame();
          return [followed, end(), panel.followed.checked, String(getSelection()), panel.list.children.length,
            panel.list.lastChild.innerText];
        }"""
    ) == [True, False, False, "BIE\nline 1000", 2000, "BIE\nline 2009"]


async def test_words_typed_just_before_a_view_is_left_do_not_change_the_next_one_s_address(page: Page):
    await page.goto("/")
    await page.clock.install()
    await page.get_by_label("Search").press_sequentially("model")
    await page.get_by_role("link", name="Queues").click()
    await expect(page.get_by_role("heading", name="Queues")).to_be_visible(timeout=SLOW_MS)
    await page.clock.run_for(1_000)
    assert page.url.endswith("#/queues")
