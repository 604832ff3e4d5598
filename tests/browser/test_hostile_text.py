"""Names and lines that are markup elsewhere are text here."""

from __future__ import annotations

import onnx
import pytest
from playwright.async_api import BrowserContext, Page, expect

from converter.devstack.stack import Stack

from .visit import MODEL, SLOW_MS, Operator, Watched

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]

IMAGE = "<img src=x onerror=alert(1)>"
SCRIPT = "<script>alert(2)</script>"
LINK = "javascript:alert(3)"


async def test_names_of_files_nodes_and_tensors_stay_text_wherever_they_are_shown(page: Page, operator: Operator):
    job_id = await operator.post(hostile_model(), name=f"{IMAGE}.onnx", quantization='{"ladder": "auto"}')
    job = await operator.ended(job_id)
    assert job["v1_status"] == "completed", job["error"]
    await page.goto("/")
    await page.get_by_role("checkbox", name=IMAGE).check(timeout=SLOW_MS)
    await page.get_by_role("link", name=IMAGE).click()
    await expect(page.get_by_role("heading", level=1)).to_have_text(f"{IMAGE}.onnx")
    await expect(page.get_by_label("Log lines")).to_contain_text(f"worst {SCRIPT}", timeout=SLOW_MS)
    await expect(page.get_by_role("region", name="Report")).to_contain_text(IMAGE)
    download = await page.get_by_role("region", name="Artifacts").get_by_role("link").first.get_attribute("href")
    assert (await operator.http.get(download or "")).status_code == 200
    await page.get_by_label("Search the log").fill("<script>")
    await expect(page.get_by_label("Log lines").locator("mark").first).to_have_text("<script>")
    await page.goto(f"/#/compare?a={job_id}&b={job_id}")
    await expect(page.get_by_role("figure").filter(has_text="SNR by layer")).to_contain_text(IMAGE)
    await page.goto(f"/#/new?retry={job_id}")
    await expect(page.get_by_role("heading", level=1)).to_contain_text(IMAGE)
    assert await injected(page) == 0
    await page.goto(f"/jobs/{job_id}/report")
    await expect(page.get_by_role("heading", level=1)).to_contain_text(IMAGE)
    await expect(page.get_by_role("rowheader", name=SCRIPT).first).to_be_attached()
    assert await injected(page) == 0


async def test_a_failure_that_quotes_markup_stays_text(page: Page, operator: Operator):
    job_id = await operator.post(unsupported_model())
    error = (await operator.ended(job_id))["error"]
    assert SCRIPT in error["message"] + (error["node"] or "") + (error["evidence"] or "")
    await page.goto(f"/#/jobs/{job_id}")
    await expect(page.locator(".failure")).to_contain_text(SCRIPT)
    assert await injected(page) == 0


async def test_an_address_with_markup_in_it_is_an_address_of_nothing(page: Page):
    for place in (f"/#/jobs/{IMAGE}", f"/#/{SCRIPT}", f"/#/compare?a={IMAGE}&b={LINK}", "/#/jobs/..%2Foptions"):
        await page.goto("about:blank")
        await page.goto(place)
        await expect(page.get_by_role("alert")).to_be_visible(timeout=SLOW_MS)
        assert await injected(page) == 0
    await page.goto(f"/#/jobs?q={IMAGE}&status={LINK}")
    await expect(page.get_by_label("Search")).to_have_value(IMAGE)


async def test_the_policy_refuses_what_the_page_does_not_do(context: BrowserContext, stack: Stack):
    other = await context.new_page()
    watched = Watched(other, stack.env["INTERNAL_URL"])
    await other.goto("/")
    await other.evaluate(
        """() => {
          const inline = document.createElement("script");
          inline.textContent = "window.ran = true";
          document.body.append(inline);
          document.body.insertAdjacentHTML("beforeend", "<b style='color: red' onclick='window.ran = true'>x</b>");
          document.querySelector("b").click();
        }"""
    )
    assert await other.evaluate("window.ran") is None
    assert len([found for found in watched.found if "Content Security Policy" in found]) >= 3


async def injected(page: Page) -> int:
    """Elements that no part of the page makes."""
    return await page.locator("main img, main script, main iframe, body > script, [onerror]").count()


def hostile_model() -> bytes:
    """The demo's model, each node and tensor of it named as markup."""
    model = onnx.load(MODEL)
    names: dict[str, str] = {}
    for number, node in enumerate(model.graph.node):
        node.name = f"{IMAGE}{number}"
        for position, output in enumerate(node.output):
            if output not in {value.name for value in model.graph.output}:
                names[output] = f"{SCRIPT}{number}"
                node.output[position] = names[output]
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
    del model.graph.value_info[:]
    return model.SerializeToString()


def unsupported_model() -> bytes:
    """A model whose job fails with a message that names a node."""
    model = onnx.load(MODEL)
    model.graph.node[1].op_type = "Reshape"
    model.graph.node[1].name = SCRIPT
    return model.SerializeToString()
