"""A job through the whole stack with the vendor's toolchain, in an interpreter that has stand-ins for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from digits import Digits
from standins.vendor_python import STANDINS, an_interpreter
from stored_reports import check_stored_reports
from upstream import Upstream

from converter.devstack.stack import Stack
from converter.kneron import nef_file

from .conftest import SETTINGS

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    root = tmp_path_factory.mktemp("kneron")
    settings = SETTINGS | {
        "TOOLCHAIN": "kneron",
        "KNERON_PYTHON": str(an_interpreter(root)),
        "KNERON_HOME": str(STANDINS),
    }
    async with Stack(root / "stack", settings=settings) as running:
        yield running
        await check_stored_reports(running)


async def test_a_job_ends_in_a_nef_that_is_its_own(stack: Stack, upstream: Upstream, digits: Digits):
    job = await digits.post("vendor", images=4)
    async with asyncio.timeout(90):
        while not job.over:
            await asyncio.sleep(0.1)
            job = await upstream.job(job.job_id)
    assert job.status == "completed", job.error
    assert job.artifacts["bie"].filename == "digits_cnn.kdp720.bie"
    await upstream.promote(job.job_id, source="nef", key="models/vendor/digits.nef")
    nef = nef_file.read(stack.stored_file("models/vendor/digits.nef").read_bytes())
    reports = await upstream.reports(job.job_id)
    target = reports["nef"]["target"]
    nef_file.check(nef, platform=target["platform"], model_id=target["model_id"], version=target["version"])
    assert {report["toolchain"]["name"] for report in reports.values()} == {"kneron"}
    assert "[analysis] from C" in await upstream.log(job.job_id, "bie")
