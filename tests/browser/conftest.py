"""The web page in a real browser, in front of the whole system."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Page, async_playwright

from converter.devstack.stack import Stack

from .visit import Operator, Watched

SETTINGS = {"STAGE_ACK_WAIT_S": "1.5"}


@pytest.fixture(scope="module")
def workers() -> Mapping[str, int]:
    """How many processes of each service; a module overrides it."""
    return {}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory, workers: Mapping[str, int]) -> AsyncIterator[Stack]:
    async with Stack(tmp_path_factory.mktemp("stack"), workers=workers, settings=SETTINGS) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    """Debian's Chromium, driven by playwright, whose own download is not used."""
    command = shutil.which("chromium")
    assert command, "the command chromium is missing: make chromium"
    async with async_playwright() as playwright:
        running = await playwright.chromium.launch(executable_path=command)
        yield running
        await running.close()


@pytest.fixture
def window() -> dict[str, Any]:
    """How the browser's window is; a test overrides it."""
    return {"viewport": {"width": 1280, "height": 860}}


@pytest_asyncio.fixture(loop_scope="module")
async def context(
    browser: Browser, stack: Stack, window: dict[str, Any], tmp_path: Path
) -> AsyncIterator[BrowserContext]:
    """A fresh profile, as of a person who comes for the first time."""
    opened = await browser.new_context(base_url=stack.env["INTERNAL_URL"], **window)
    yield opened
    await opened.close()


@pytest_asyncio.fixture(loop_scope="module")
async def page(context: BrowserContext, stack: Stack) -> AsyncIterator[Page]:
    """A tab. Whatever a test does there: no foreign script runs, no other origin is asked, no policy is broken."""
    opened = await context.new_page()
    watched = Watched(opened, stack.env["INTERNAL_URL"])
    yield opened
    watched.check()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def operator(stack: Stack) -> AsyncIterator[Operator]:
    """Posts jobs without the page, where a test is not about posting."""
    async with httpx.AsyncClient(base_url=stack.env["INTERNAL_URL"], trust_env=False, timeout=60) as http:
        yield Operator(http)
