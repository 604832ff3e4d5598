"""One command makes JetStream fit, as often as it is run."""

from __future__ import annotations

import pytest
from jobs import created

from converter.common.bus import Bus, BusRefused, EventBusUnavailable
from converter.common.eventlog import JobLog
from converter.common.provision import ProvisionSettings, provision
from converter.common.settings import SettingsError, load
from converter.common.topology import EVENTS, LOGS, PROGRESS, SECOND, Tuning, stage_durable
from converter.contracts.job import Stage


async def test_what_fits_already_is_left_alone(bus: Bus) -> None:
    tuning = Tuning(ack_wait_s=7)
    assert await provision(bus, tuning)
    assert await provision(bus, tuning) == []


async def test_a_changed_topology_is_applied_and_events_survive_it(bus: Bus, job_log: JobLog) -> None:
    await job_log.append("j", lambda _: created("j"))
    changes = await provision(bus, Tuning(ack_wait_s=7, retention_days=20))
    assert any(EVENTS in change and "max_age" in change for change in changes)
    consumer = (await bus.api(f"CONSUMER.INFO.{EVENTS}.{stage_durable(Stage.BIE)}"))["config"]
    assert consumer["ack_wait"] == 7 * SECOND
    assert await job_log.read("j") is not None


async def test_events_cannot_be_deleted_or_purged(bus: Bus, job_log: JobLog) -> None:
    await job_log.append("j", lambda _: created("j"))
    for verb, body in ((f"STREAM.PURGE.{EVENTS}", {"keep": 0}), (f"STREAM.MSG.DELETE.{EVENTS}", {"seq": 1})):
        with pytest.raises(BusRefused):
            await bus.api(verb, body)
    assert await job_log.read("j") is not None


async def test_what_conversions_write_cannot_take_the_disk_from_the_events(bus: Bus) -> None:
    for stream in (PROGRESS, LOGS):
        config = (await bus.api(f"STREAM.INFO.{stream}"))["config"]
        assert config["discard"] == "old", "the oldest lines go, and no conversion waits"
        assert 0 < config["max_bytes"] < Tuning().events_max_bytes / 10


async def test_nobody_writes_the_projection(bus: Bus) -> None:
    with pytest.raises(EventBusUnavailable):
        await bus.store("$KV.job_state.j", b"{}")


@pytest.mark.parametrize(
    ("variables", "wrong"),
    [
        ({"SUBSCRIBERS": "billing,stage-onnx"}, "SUBSCRIBERS"),
        ({"REMOVED_SUBSCRIBERS": "promoter"}, "REMOVED_SUBSCRIBERS"),
        ({"SUBSCRIBERS": "billing", "REMOVED_SUBSCRIBERS": "billing"}, "REMOVED_SUBSCRIBERS"),
        ({"SUBSCRIBERS": "billing.>"}, "SUBSCRIBERS"),
    ],
)
def test_a_subscriber_is_neither_a_service_nor_both_wanted_and_removed(variables: dict[str, str], wrong: str) -> None:
    with pytest.raises(SettingsError) as refused:
        load(ProvisionSettings, {"NATS_URL": "nats://127.0.0.1:4222"} | variables)
    assert [problem.variable for problem in refused.value.problems] == [wrong]
