"""`python -m converter.promoter`: uploads finished artifacts to the file store, on `promotion.requested`."""

from __future__ import annotations

import asyncio

from converter.common import service
from converter.common.bus import Bus
from converter.common.consumer import consume, heartbeat_s
from converter.common.eventlog import JobLog
from converter.common.monitoring import monitored
from converter.common.oauth import token_source
from converter.common.storage import must_work, open_store
from converter.common.topology import EVENTS, PROMOTER
from converter.common.workers import Presence
from converter.promoter.file_store import SCOPE, open_file_store
from converter.promoter.handler import Promotions
from converter.promoter.settings import PromoterSettings

CONCURRENCY = 4
"""Uploads at once: each waits for the file store most of its time, and none may keep the others from starting."""


async def main(settings: PromoterSettings, stop: asyncio.Event) -> None:
    """Promote until `stop` is set."""
    async with (
        await Bus.connect(settings.nats, name=PROMOTER, on_lost=service.die) as bus,
        open_store(settings.storage) as store,
        token_source(settings.oauth, scope=SCOPE) as tokens,
        open_file_store(settings.file_access_agent.file_access_agent_base_url, tokens) as file_store,
    ):
        beat_s = await heartbeat_s(bus, EVENTS, PROMOTER)
        await must_work(store)
        await service.must_listen("the issuer", settings.oauth.member_center_token_url)
        await service.must_listen("the file store", settings.file_access_agent.file_access_agent_base_url)
        presence = Presence(bus, PROMOTER, concurrency=CONCURRENCY)
        promotions = Promotions(JobLog(bus, PROMOTER), store, file_store, presence=presence, draining=stop)
        async with presence.shown(beat_s), monitored(settings.monitoring, bus):
            await consume(bus, EVENTS, PROMOTER, promotions.handle, concurrency=CONCURRENCY, stop=stop)


if __name__ == "__main__":
    service.run(PROMOTER, PromoterSettings, main)
