"""Every view, light and dark, wide and narrow: accessible, within its window, and as the documentation shows it.

With SCREENSHOTS set to a directory (`make screenshots`) the pictures of the documentation are written there.
"""

from __future__ import annotations

import io
import os
import re
from pathlib import Path
from typing import Any, Literal

import pytest
import pytest_asyncio
from PIL import Image
from playwright.async_api import Page, expect

from converter.devstack.stack import Stack

from .visit import IMAGES, MODEL, SLOW_MS, Operator

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]

AXE = Path(__file__).resolve().parents[1] / "node/node_modules/axe-core/axe.min.js"
SCREENSHOTS = os.environ.get("SCREENSHOTS")
NARROW = {"width": 360, "height": 740}
WIDE = {"width": 1280, "height": 800}
SCHEMES: tuple[Literal["light"], Literal["dark"]] = ("light", "dark")
VIEWS = ("jobs", "job", "failed", "waiting", "compare", "queues", "new", "promote", "report", "report of a failure")
PICTURES = {"jobs", "job", "new", "compare"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def places(stack: Stack, operator: Operator) -> dict[str, str]:
    """Where each view is, with jobs of every kind in it."""
    first = await operator.post(images=100)
    second = await operator.post(images=100, quantization='{"ladder": "auto", "min_snr_db": 30}')
    failed = await operator.post(quantization='{"min_snr_db": 100}', platform="530", name="segmenter.onnx")
    for job_id in (first, second, failed):
        await operator.ended(job_id)
    await stack.stop("stage-nef")
    waiting = await operator.post(name="detector-with-a-rather-long-name-640x640-final.onnx", platform="730")
    return {
        "jobs": "/#/jobs",
        "job": f"/#/jobs/{second}",
        "failed": f"/#/jobs/{failed}",
        "waiting": f"/#/jobs/{waiting}",
        "compare": f"/#/compare?a={first}&b={second}",
        "queues": "/#/queues",
        "new": "/#/new",
        "promote": f"/#/jobs/{first}",
        "report": f"/jobs/{second}/report",
        "report of a failure": f"/jobs/{failed}/report",
    }


@pytest.mark.parametrize("view", VIEWS)
async def test_a_view_is_accessible_and_fits_its_window_light_and_dark(page: Page, places: dict[str, str], view: str):
    await page.emulate_media(reduced_motion="reduce")
    await page.goto(places[view])
    await prepared(page, view)
    for size in (WIDE, NARROW):
        await page.set_viewport_size(size)
        for scheme in SCHEMES:
            await page.emulate_media(color_scheme=scheme)
            assert await violations(page) == []
            if SCREENSHOTS and view in PICTURES and size is WIDE:
                await picture(page, Path(SCREENSHOTS) / f"page-{view}-{scheme}.png", whole=view in {"job", "compare"})
        assert await page.evaluate("document.documentElement.scrollWidth") <= size["width"]


async def prepared(page: Page, view: str) -> None:
    """The view as it is when everything has been loaded."""
    shown = {
        "jobs": page.get_by_role("link", name="segmenter.onnx"),
        "job": page.get_by_role("heading", name="Accuracy ladder"),
        "failed": page.get_by_role("region", name="Failed in BIE"),
        "waiting": page.get_by_text(re.compile("Waiting for a worker|Place 1 in the queue")),
        "compare": page.get_by_role("heading", name="SNR by layer"),
        "queues": page.get_by_text("No live worker"),
        "new": page.get_by_role("button", name="Convert"),
        "promote": page.get_by_role("heading", name="Report"),
        "report": page.get_by_role("heading", name="Ladder", exact=True),
        "report of a failure": page.get_by_text("accuracy_below_minimum"),
    }[view]
    await expect(shown).to_be_visible(timeout=SLOW_MS)
    if view == "new":
        await page.get_by_label("Model", exact=False).first.set_input_files(MODEL)
        await page.get_by_label("Reference images").set_input_files(IMAGES)
        await page.get_by_role("button", name="Check only").click()
        await expect(page.get_by_role("region", name="This would be taken")).to_be_visible(timeout=SLOW_MS)
        await page.get_by_text("Quantisation", exact=True).click()
        await page.evaluate("window.scrollTo(0, 0)")
    if view == "promote":
        await page.get_by_role("button", name="Promote…").click()


async def picture(page: Page, file: Path, *, whole: bool) -> None:
    """The view as a small file, of every colour that it has."""
    taken = Image.open(io.BytesIO(await page.screenshot(full_page=whole)))
    file.parent.mkdir(parents=True, exist_ok=True)
    taken.convert("RGB").save(file, optimize=True)


async def violations(page: Page) -> list[Any]:
    """What axe finds serious or worse: the rule, and where."""
    await page.evaluate(AXE.read_text())
    found: list[Any] = await page.evaluate("axe.run({resultTypes: ['violations']}).then(({violations}) => violations)")
    return [
        (each["id"], [(node["target"], node["failureSummary"]) for node in each["nodes"]][:3])
        for each in found
        if each["impact"] in {"serious", "critical"}
    ]
