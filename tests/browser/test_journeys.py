"""What an operator does from a model to a promoted file, with a mouse or with the keyboard alone."""

from __future__ import annotations

import hashlib
import re
import signal
from pathlib import Path

import pytest
from playwright.async_api import Locator, Page, expect

from converter.common.provenance import verify_artifact
from converter.devstack.stack import Stack

from .visit import IMAGES, MODEL, SLOW_MS, Operator

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]

STORAGE_AWAY = {"error": "The object storage is away.", "code": "storage_unavailable", "details": {}}


async def test_a_model_is_checked_converted_looked_at_downloaded_and_promoted(page: Page, stack: Stack, tmp_path: Path):
    await page.goto("/")
    await page.get_by_role("link", name="New job").click()
    await page.get_by_label("Model", exact=False).first.set_input_files(MODEL)
    await page.get_by_label("Reference images").set_input_files(IMAGES[:30])
    await page.get_by_role("button", name="Check only").click()
    verdict = page.get_by_role("region", name="This would be taken")
    await expect(verdict).to_contain_text("opset 11", timeout=SLOW_MS)
    await expect(verdict).to_contain_text("13 nodes")

    await page.get_by_text("Quantisation", exact=True).click()
    await page.get_by_label("ladder").select_option(label="auto")
    await page.get_by_label("min_snr_db").fill("30")
    await page.get_by_role("button", name="Convert").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text(MODEL.name, timeout=SLOW_MS)
    await expect(page.locator(".stage.done")).to_have_count(3, timeout=SLOW_MS)

    report = page.get_by_role("region", name="Report")
    for plot in ("SNR by layer", "Size by stage", "Operators on the KL720", "Accuracy ladder", "Latency on this CPU"):
        await expect(report.get_by_role("heading", name=plot)).to_be_visible()
    await expect(page.get_by_label("Log lines")).to_contain_text("int16: 7 tensors quantised")

    artifact = page.get_by_role("link", name="digits_cnn.ref.nef")
    async with page.expect_download() as downloading:
        await artifact.click()
    file = tmp_path / "downloaded"
    await (await downloading.value).save_as(file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    await expect(page.get_by_role("region", name="Artifacts")).to_contain_text(digest)
    async with page.expect_download() as downloading:
        await page.get_by_role("link", name="Signed statement").last.click()
    statement = tmp_path / "statement"
    await (await downloading.value).save_as(statement)
    file = file.rename(tmp_path / "digits_cnn.ref.nef")
    verify_artifact(file, statement, Path(stack.env["PROVENANCE_PUBLIC_KEY_FILE"]))

    await page.get_by_role("button", name="Promote…").click()
    key = page.get_by_label("Key in the file store")
    await page.get_by_label("Artifact", exact=True).select_option("bie")
    await expect(key).to_have_value("models/operator/digits_cnn.ref.bie")
    await key.fill("../escape.nef")
    await page.get_by_label("Artifact", exact=True).select_option("nef")
    await expect(key).to_have_value("../escape.nef")
    promote = page.get_by_role("dialog").get_by_role("button", name="Promote")
    await promote.click()
    await expect(page.get_by_role("dialog")).to_contain_text("invalid_object_key", timeout=SLOW_MS)
    await expect(promote).to_be_focused()
    await key.fill("models/page/digits.nef")
    await promote.click()
    await expect(page.get_by_role("region", name="Promotions")).to_contain_text("completed", timeout=SLOW_MS)
    assert stack.stored_file("models/page/digits.nef").read_bytes() == file.read_bytes()


async def test_bad_fields_are_shown_at_their_inputs_and_a_chip_offers_only_what_it_has(page: Page):
    await page.goto("/#/new")
    await page.get_by_text("Quantisation", exact=True).click()
    bits = page.get_by_label("weight_bitwidth_mode")
    await expect(bits.get_by_role("option", name="int4")).to_have_count(0)
    await page.get_by_label("Chip").select_option("530")
    await expect(bits.get_by_role("option", name="int4")).to_have_count(1)

    await page.get_by_role("button", name="Convert").click()
    await expect(page.get_by_text("Choose a file.")).to_be_visible()
    await page.get_by_label("Model", exact=False).first.set_input_files(MODEL)
    await page.get_by_label("percentile").fill("0.5")
    await page.get_by_label("Static input shapes").fill("image:1,3,x")
    await page.get_by_role("button", name="Convert").click()
    for field, told in (("percentile", "only with datapath_range_method mmse"), ("Static input shapes", "1,3,224,224")):
        await expect(page.get_by_label(field)).to_have_attribute("aria-invalid", "true", timeout=SLOW_MS)
        await expect(page.get_by_label(field)).to_have_accessible_description(re.compile(told))
    await expect(page.get_by_label("Static input shapes")).to_be_focused()


async def test_a_failed_job_says_why_and_is_tried_again_with_other_options(page: Page, operator: Operator):
    job_id = await operator.post(quantization='{"min_snr_db": 100}')
    failed = await operator.ended(job_id)
    await page.goto(f"/#/jobs/{job_id}")
    card = page.get_by_role("region", name="accuracy_below_minimum")
    for told in (failed["error"]["message"], failed["error"]["hint"], failed["error"]["evidence"]):
        await expect(card).to_contain_text(told)

    await page.get_by_role("link", name="Retry with changes…").click()
    minimum = page.get_by_label("min_snr_db")
    await expect(minimum).to_have_value("100")
    await minimum.fill("10")
    await page.get_by_role("button", name="Convert").click()
    await expect(page.locator(".stage.done")).to_have_count(3, timeout=SLOW_MS)
    second = page.url.rpartition("/")[2]
    assert (await operator.job(second))["options"]["quantization"] == {"min_snr_db": 10}

    await page.get_by_role("link", name="Compare…").click()
    await page.get_by_label("Second job").select_option(job_id)
    differing = page.get_by_role("region", name="Options that differ").first
    await expect(differing.get_by_role("row")).to_have_count(2)
    await expect(differing.get_by_role("row").last).to_have_text(re.compile("min_snr_db.*10.*100"))

    await page.goto(f"/#/jobs/{second}")
    await page.get_by_role("button", name="Delete…").click()
    await page.get_by_role("button", name="Delete for good").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Jobs")
    await expect(page.locator(f"a[href='#/jobs/{job_id}']")).to_be_visible()
    await expect(page.locator(f"a[href='#/jobs/{second}']")).to_have_count(0)


async def test_a_page_comes_back_by_itself_after_the_gateway_was_away(page: Page, operator: Operator, stack: Stack):
    stack.send_signal("stage-bie", signal.SIGSTOP)
    job_id = await operator.post()
    await page.goto(f"/#/jobs/{job_id}")
    await expect(page.locator(".stage.done")).to_have_count(1, timeout=SLOW_MS)
    banner = page.get_by_text("Connection lost, trying again…")
    await stack.kill("api-gateway")
    await expect(banner).to_be_visible(timeout=SLOW_MS)
    await stack.start("api-gateway")
    await expect(banner).to_be_hidden(timeout=SLOW_MS)
    stack.send_signal("stage-bie", signal.SIGCONT)
    await expect(page.locator(".stage.done")).to_have_count(3, timeout=SLOW_MS)
    lines = page.get_by_label("Log lines").locator(".line")
    once = (await operator.http.get(f"/jobs/{job_id}/logs?stage=onnx")).text.splitlines()
    await expect(lines.filter(has_text="ONNX")).to_have_count(len(once))


async def test_no_loss_is_announced_where_the_page_itself_ends_its_connections(
    page: Page, operator: Operator, stack: Stack
):
    stack.send_signal("stage-bie", signal.SIGSTOP)
    job_id = await operator.post()
    await page.goto(f"/#/jobs/{job_id}")
    await expect(page.locator(".stage.done")).to_have_count(1, timeout=SLOW_MS)
    await page.evaluate(
        """() => {
          window.changes = 0;
          const watched = document.getElementById("banner");
          new MutationObserver(() => window.changes++).observe(watched, { attributes: true });
        }"""
    )

    async def look(*, hidden: bool) -> None:
        await page.evaluate(
            """(hidden) => {
              Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
              document.dispatchEvent(new Event("visibilitychange"));
            }""",
            hidden,
        )

    await look(hidden=True)
    async with page.expect_response(f"**/jobs/{job_id}/events"):
        await look(hidden=False)
    await page.get_by_role("link", name="Jobs", exact=True).first.click()
    await expect(page.locator(f"a[href='#/jobs/{job_id}']")).to_be_visible()
    assert await page.evaluate("window.changes") == 0
    stack.send_signal("stage-bie", signal.SIGCONT)


async def test_the_log_of_a_job_that_is_over_is_told_once(page: Page, operator: Operator):
    job_id = await operator.post()
    await page.goto(f"/#/jobs/{job_id}")
    await expect(page.locator(".stage.done")).to_have_count(3, timeout=SLOW_MS)
    told = (await operator.http.get(f"/jobs/{job_id}/logs")).text.splitlines()
    once = len([line for line in told if line and not line.startswith("==> ")])
    await page.clock.install()
    await page.reload()
    lines = page.get_by_label("Log lines").locator(".line")
    await expect(lines).to_have_count(once)
    for _ in range(3):
        await page.clock.run_for(2_000)
        await page.evaluate("fetch('/health/live').then(answer => answer.text())")
        await expect(lines).to_have_count(once)


async def test_a_read_that_broke_off_is_repeated_and_takes_nothing_from_the_view(page: Page, operator: Operator):
    job_id = await operator.post()
    await operator.ended(job_id)
    await page.route(f"**/jobs/{job_id}/report", lambda route: route.abort("connectionreset"), times=1)
    await page.goto(f"/#/jobs/{job_id}")
    await expect(page.get_by_role("region", name="Report")).to_be_visible(timeout=SLOW_MS)
    await expect(page.locator(".stage.done")).to_have_count(3)
    await page.route(f"**/jobs/{job_id}/report", lambda route: route.fulfill(status=502, json=STORAGE_AWAY))
    await page.reload()
    await expect(page.get_by_text(STORAGE_AWAY["error"])).to_be_visible(timeout=SLOW_MS)
    await expect(page.locator(".stage.done")).to_have_count(3)


async def test_a_job_is_cancelled_from_the_keyboard_alone(page: Page, operator: Operator, stack: Stack):
    stack.send_signal("stage-bie", signal.SIGSTOP)
    await page.goto("/")
    await press_on(page, "link", "New job")
    await tab_to(page, "Model")
    async with page.expect_file_chooser() as choosing:
        await page.keyboard.press("Space")
    await (await choosing.value).set_files(MODEL)
    await press_on(page, "button", "Convert")
    await expect(page.locator(".stage.done")).to_have_count(1, timeout=SLOW_MS)
    await press_on(page, "button", "Cancel…")
    await press_on(page, "button", "Cancel the job")
    await expect(page.locator(".job-heading .status")).to_have_text("Cancelled", timeout=SLOW_MS)
    stack.send_signal("stage-bie", signal.SIGCONT)


async def test_a_job_is_tried_again_compared_and_promoted_from_the_keyboard_alone(
    page: Page, operator: Operator, stack: Stack
):
    first = await operator.post()
    await operator.ended(first)
    await page.goto(f"/#/jobs/{first}")
    await press_on(page, "link", "Retry with changes…")
    await press_on(page, "button", "Convert")
    await expect(page.locator(".stage.done")).to_have_count(3, timeout=SLOW_MS)
    second = page.url.rpartition("/")[2]
    assert second != first

    await press_on(page, "link", "Compare…")
    other = page.get_by_label("Second job")
    await expect(other).to_be_visible(timeout=SLOW_MS)
    while not await other.evaluate("(select) => select === document.activeElement"):
        await page.keyboard.press("Tab")
    for _ in (second, first):  # the newest first, and one key right after the other
        await page.keyboard.press("ArrowDown")
    await page.wait_for_url(f"**/#/compare?a={second}&b={first}")
    await expect(other).to_be_focused()
    await expect(page.get_by_role("heading", name="SNR by layer")).to_be_visible(timeout=SLOW_MS)

    await page.goto(f"/#/jobs/{second}")
    await press_on(page, "button", "Promote…")
    await tab_to(page, "Key in the file store")
    await page.keyboard.press("Control+A")
    await page.keyboard.type("models/page/by-keyboard.nef")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("region", name="Promotions")).to_contain_text("completed", timeout=SLOW_MS)
    assert stack.stored_file("models/page/by-keyboard.nef").is_file()


async def test_figures_of_two_jobs_are_both_seen_where_they_are_the_same(page: Page, operator: Operator):
    one, other = await operator.post(), await operator.post()
    for job_id in (one, other):
        await operator.ended(job_id)
    await page.goto(f"/#/compare?a={one}&b={other}")
    await expect(page.get_by_role("heading", name="SNR by layer")).to_be_visible(timeout=SLOW_MS)
    rows = await page.evaluate(
        """() => [...document.querySelectorAll(".plot-rows .track")]
            .map((row) => [...row.querySelectorAll("circle")].map(({ cx, r, classList }) =>
                [cx.baseVal.value, r.baseVal.value, [...classList]]))"""
    )
    assert rows
    for (ring_x, ring_r, ring), (dot_x, dot_r, dot) in rows:
        assert (ring, dot) == (["ring", "series-1"], ["series-0"]), "the dot is drawn over the ring"
        assert ring_x == dot_x
        assert dot_r < ring_r - 1, "and leaves the ring's line free"


async def test_files_are_dropped_on_their_fields_and_nowhere_else(page: Page):
    await page.goto("/#/new")
    model, images = page.locator("label.drop[for=field-model]"), page.locator("label.drop[for=field-ref_images]")
    await drop(page, model, MODEL)
    await expect(model).to_contain_text(f"{MODEL.name}, ")
    await drop(page, images, *IMAGES[:5])
    await expect(images).to_contain_text("5 files, ")
    await drop(page, page.get_by_role("heading", level=1), IMAGES[0])
    await expect(images).to_contain_text("5 files, ")
    await page.get_by_role("button", name="Check only").click()
    verdict = page.get_by_role("region", name="This would be taken")
    await expect(verdict).to_contain_text("13 nodes", timeout=SLOW_MS)


async def drop(page: Page, target: Locator, *files: Path) -> None:
    """Drag `files` from the desktop over `target` and let them go, as the browser's own input does."""
    await target.scroll_into_view_if_needed()
    box = await target.bounding_box()
    assert box
    devtools = await page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(file) for file in files], "dragOperationsMask": 1}
    place = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
    for kind in ("dragEnter", "dragOver", "drop"):
        await devtools.send("Input.dispatchDragEvent", {"type": kind, **place, "data": data})
    await devtools.detach()


async def tab_to(page: Page, name: str) -> None:
    """Press Tab until what has the focus is called so."""
    for _ in range(80):
        await page.keyboard.press("Tab")
        called = await page.evaluate(
            """() => {
              const focused = document.activeElement;
              return [...(focused.labels ?? [])].map((label) => label.innerText).join(" ") || focused.innerText || "";
            }"""
        )
        if called.strip().partition("\n")[0] == name:
            return
    raise AssertionError(f"80 tabs, and {name!r} never had the focus")


async def press_on(page: Page, role: str, name: str) -> None:
    """Go there by Tab and press Enter."""
    await expect(page.get_by_role(role, name=name, exact=True)).to_be_visible(timeout=SLOW_MS)
    await tab_to(page, name)
    await page.keyboard.press("Enter")
