"""The reports of conversions that a stack has stored, held to the published schema."""

from __future__ import annotations

import json

from published import validator

from converter.common.settings import StorageSettings, load
from converter.common.storage import open_store
from converter.devstack.stack import Stack


async def check_stored_reports(stack: Stack) -> None:
    """Raises ValidationError where a report is not what the schema says, or has a field that it does not describe."""
    async with open_store(load(StorageSettings, stack.variables)) as store:
        for key in [each.object_key async for each in store.list("jobs/") if each.object_key.endswith("report")]:
            stage = key.split("/")[2]  # jobs/<job>/<stage>/<attempt>/…
            async with store.open(key) as download:
                content = b"".join([chunk async for chunk in download.chunks])
            validator("report", f"{stage.capitalize()}Report").validate(json.loads(content))
