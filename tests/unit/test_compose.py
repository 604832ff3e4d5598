"""The compose file is one, and confines each of its containers; what it gives a service is what that reads."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_spec import PyCompose
from env_example import SETTINGS
from outside import OUTSIDE

from converter.common.access import PROVISIONER
from converter.common.isolation.warden_process import OBEY_S
from converter.common.settings import ServiceSettings, describe, load
from converter.common.storage.store import DISCARD_TIMEOUT_S
from converter.devstack.services import GATEWAY
from converter.devstack.services import SERVICES as PROGRAMS

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {program.name for program in PROGRAMS} | {"provision"}
ONCE = {"volumes", "storage-bucket", "provision"}
"""They do one thing and end."""
COPIED = dict(re.findall(r"^(\w+)=(.*)$", (ROOT / "env.example").read_text(), re.MULTILINE))
FILLED_IN = {name: value for name, value in (COPIED | OUTSIDE).items() if name != "KNERON_CONVERTER_CLIENT_SECRET"}
"""What `.env` says once deploy/README.md was followed: what is outside, and no secret; the rest is as it was copied."""


def settings_of(service: str) -> type[ServiceSettings]:
    [found] = [settings for services, settings in SETTINGS.items() if service in services.split(", ")]
    return found


def environment_of(service: str) -> dict[str, str]:
    """What the compose file itself sets, where `.env` says nothing of it."""
    given = SERVICES[service]["environment"].items()
    return {name: re.sub(r"\$\{\w+:-(\w+)\}", r"\1", value) for name, value in given}


def secrets_of(service: str) -> dict[str, str]:
    """Where the container finds each secret that it is given, by the secret."""
    given = (each if isinstance(each, dict) else {"source": each} for each in SERVICES[service].get("secrets", ()))
    return {each["source"]: f"/run/secrets/{each.get('target', each['source'])}" for each in given}


def checked(compose: dict[str, Any]) -> None:
    PyCompose.from_yaml(yaml.safe_dump(compose)).validate()


def test_it_keeps_to_the_compose_specification():
    checked(COMPOSE)


def test_a_mistyped_key_and_a_secret_that_is_not_there_would_be_found():
    nats = SERVICES["nats"]
    for broken in ({**nats, "mem_limt": "1g"}, {**nats, "secrets": ["nobodys"]}):
        with pytest.raises(ValueError, match=r"mem_limt|nobodys"):
            checked({**COMPOSE, "services": {**SERVICES, "nats": broken}})


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_is_confined_and_bounded(name: str):
    service = SERVICES[name]
    assert service["user"] == ("0" if name == "volumes" else "10001:10001")
    assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service.get("cap_add", []) == (["CHOWN"] if name == "volumes" else [])
    assert {"mem_limit", "cpus", "pids_limit", "logging"} <= service.keys()
    assert service["restart"] == ("no" if name in ONCE else "unless-stopped")


@pytest.mark.parametrize("name", sorted(SERVICES.keys() - ONCE))
def test_what_keeps_running_is_asked_whether_it_is_well(name: str):
    if name in OURS:  # the image's own
        assert "healthcheck" not in SERVICES[name]
        assert "HEALTHCHECK" in (ROOT / "deploy" / "Dockerfile").read_text()
    else:
        assert SERVICES[name]["healthcheck"]["test"]


@pytest.mark.parametrize("name", sorted(SERVICES.keys() - OURS))
def test_the_image_of_another_is_of_one_release(name: str):
    assert re.fullmatch(r"[\w/-]+:(RELEASE\.[\dTZ-]+|\d+\.\d+\.\d+-alpine)", SERVICES[name]["image"])


@pytest.mark.parametrize("name", sorted(OURS))
def test_a_service_starts_with_what_it_is_given_and_is_given_no_other_secret(name: str, tmp_path: Path):
    environ = FILLED_IN | environment_of(name)
    given = secrets_of(name)
    user = PROVISIONER if name == "provision" else name
    assert given.pop(user) == environ["NATS_NKEY_SEED_FILE"]
    read = {variable.variable for variable in describe(settings_of(name)) if variable.secret}
    assert given.keys() <= read
    for secret, path in given.items():
        assert environ[f"{secret}_FILE"] == path
        (tmp_path / secret).write_text("x" * 64)
        environ[f"{secret}_FILE"] = str(tmp_path / secret)
    assert load(settings_of(name), environ).environment == "production"


def test_no_secret_is_in_an_environment_or_on_a_command_line():
    secret = {variable.variable for settings in SETTINGS.values() for variable in describe(settings) if variable.secret}
    interpolated = set(re.findall(r"\$\{(\w+)", (ROOT / "compose.yaml").read_text()))
    assert not secret & interpolated
    for service in SERVICES.values():
        assert not secret & service.get("environment", {}).keys()
    for name, where in COMPOSE["secrets"].items():
        assert where == {"file": f"deploy/secrets/{name}" if name in secret else f"deploy/nats-users/{name}.seed"}


def test_the_internal_listener_is_published_on_loopback_alone():
    assert {name: service["ports"] for name, service in SERVICES.items() if "ports" in service} == {
        "api-gateway": ["4000:4000", "127.0.0.1:4001:4001"]
    }


def test_every_service_of_ours_has_longer_than_its_drain():
    [requests_s] = [
        int(variable.default or 0)
        for variable in describe(settings_of(GATEWAY.name))
        if variable.variable == "SHUTDOWN_GRACE_SECONDS"
    ]
    drain_s = dict.fromkeys((program.name for program in PROGRAMS), OBEY_S) | {GATEWAY.name: requests_s}
    for name, ends_s in drain_s.items():
        # After it, what was being stored is taken back.
        assert int(SERVICES[name]["stop_grace_period"].removesuffix("s")) > ends_s + DISCARD_TIMEOUT_S
