"""How the environment becomes settings, and what a person is told when it does not."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import pytest
from msgspec import Meta, Struct

from converter.common.environment import without_password
from converter.common.settings import (
    FileAccessAgentSettings,
    NatsSettings,
    OAuthClientSettings,
    Port,
    Problem,
    Secret,
    ServiceSettings,
    SettingsError,
    StageSettings,
    StorageSettings,
    describe,
    load,
)


class Inner(Struct, frozen=True, kw_only=True):
    inner_ratio: Annotated[float, Meta(gt=0, description="a ratio")] = 0.5


class Example(ServiceSettings, frozen=True, kw_only=True):
    inner: Inner
    name: Annotated[str, Meta(pattern="^[a-z]+$", description="a name")]
    port: Port = 4000
    mode: Literal["fast", "careful"] = "fast"
    verbose: bool = False
    directory: Path | None = None
    signing_key: Annotated[Secret, Meta(description="signs")] = Secret("")


def problems_of(cls: type[Struct], environ: dict[str, str]) -> dict[str, Problem]:
    with pytest.raises(SettingsError) as raised:
        load(cls, environ)
    assert all(str(problem) in str(raised.value) for problem in raised.value.problems)
    return {problem.variable: problem for problem in raised.value.problems}


def test_defaults_stand_for_what_is_not_set_and_for_what_is_set_empty():
    settings = load(Example, {"NAME": "abc", "PORT": "", "DIRECTORY": ""})
    assert settings == Example(name="abc", inner=Inner())


def test_every_type_is_read_from_its_variable():
    settings = load(
        Example,
        {
            "NAME": "abc",
            "PORT": "8080",
            "MODE": "careful",
            "VERBOSE": "on",
            "DIRECTORY": "/data",
            "SIGNING_KEY": "k",
            "INNER_RATIO": "0.25",
            "LOG_LEVEL": "DEBUG",
        },
    )
    assert settings == Example(
        name="abc",
        port=8080,
        mode="careful",
        verbose=True,
        directory=Path("/data"),
        signing_key=Secret("k"),
        inner=Inner(inner_ratio=0.25),
        log_level="DEBUG",
    )


@pytest.mark.parametrize(
    ("written", "meant"), [("on", True), ("TRUE", True), ("1", True), ("yes", True), ("off", False), ("0", False)]
)
def test_a_switch_is_read_in_the_ways_people_write_it(written: str, meant: bool):  # noqa: FBT001 - the expected value
    assert load(Example, {"NAME": "abc", "VERBOSE": written}).verbose is meant


def test_everything_missing_or_bad_is_named_at_once_with_what_was_found_and_what_is_allowed():
    problems = problems_of(
        Example, {"PORT": "70000", "MODE": "quick", "VERBOSE": "maybe", "INNER_RATIO": "nan", "ENVIRONMENT": "prod"}
    )
    assert {variable: (problem.found, problem.allowed) for variable, problem in problems.items()} == {
        "NAME": ("missing", "text that matches ^[a-z]+$"),
        "PORT": ("'70000'", "an integer, at least 1, at most 65535"),
        "MODE": ("'quick'", "careful, fast"),
        "VERBOSE": ("'maybe'", "on or off"),
        "INNER_RATIO": ("'nan'", "a number, above 0"),
        "ENVIRONMENT": ("'prod'", "development, production"),
    }


def test_a_secret_may_come_from_a_file_without_its_line_end(tmp_path: Path):
    (tmp_path / "key").write_text("s3cret\n")
    settings = load(Example, {"NAME": "abc", "SIGNING_KEY_FILE": str(tmp_path / "key")})
    assert settings.signing_key.reveal() == "s3cret"


@pytest.mark.parametrize(
    ("content", "also_set", "complaint"),
    [(None, False, "No such file"), (b"", False, "empty"), (b"\xff", False, "not UTF-8"), (b"x", True, "set twice")],
)
def test_a_secret_file_that_cannot_serve_is_named(
    tmp_path: Path,
    content: bytes | None,
    also_set: bool,  # noqa: FBT001 - a case of the table
    complaint: str,
):
    if content is not None:
        (tmp_path / "key").write_bytes(content)
    environ = {"NAME": "abc", "SIGNING_KEY_FILE": str(tmp_path / "key")} | ({"SIGNING_KEY": "k"} if also_set else {})
    assert complaint in problems_of(Example, environ)["SIGNING_KEY"].found


def test_a_secret_shows_itself_only_when_asked():
    settings = load(Example, {"NAME": "abc", "SIGNING_KEY": "s3cret"})
    shown = f"{settings} {settings!r} {settings.signing_key} {settings.signing_key!r}"
    assert "s3cret" not in shown
    assert settings.signing_key.reveal() == "s3cret"


def test_a_refused_secret_or_password_is_not_shown_even_in_the_traceback():
    environ = {
        "ENVIRONMENT": "production",
        "NAME": "abc",
        "SIGNING_KEY": "REPLACE-ME-hunter2",
        "NATS_URL": "http://user:hunter2/@host",
    }
    for cls in (Example, NatsSettings):
        with pytest.raises(SettingsError) as raised:
            load(cls, environ)
        assert "hunter2" not in "".join(traceback.format_exception(raised.value))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("nats://host:4222", "nats://host:4222"),
        ("nats://a:hunter2@h1,tls://h2:4222,nats://b:hunter2@h3", "nats://…@h1,tls://h2:4222,nats://…@h3"),
        ("nats://a:hunter2,hunter://2@h1", "nats://…@h1"),
        ("nats://a:hunter2,hunter2@h1,nats://h2", "nats://…@h1,nats://h2"),
        ("nats://a:hunter2@hunter2@h1,nats://b:hunter2%40%2C@h2", "nats://…@h1,nats://…@h2"),
        ("nats://a:hunter2//hunter2 hunter2\nhunter2@h", "nats://…@h"),
        ("a:hunter2@host:4222", "…@host:4222"),
    ],
)
def test_of_addresses_the_servers_are_shown_and_never_a_password(text: str, shown: str):
    assert without_password(text) == shown


@pytest.mark.parametrize("placeholder", ["REPLACE-ME", "replace-me-please", "https://members.example.invalid/token"])
def test_placeholders_stop_only_a_production_start(placeholder: str):
    environ = {"NAME": "abc", "SIGNING_KEY": placeholder}
    assert load(Example, environ).signing_key == Secret(placeholder)
    assert "placeholder" in problems_of(Example, environ | {"ENVIRONMENT": "production"})["SIGNING_KEY"].found


def test_the_file_store_is_reached_over_tls_in_production():
    environ = {"FILE_ACCESS_AGENT_BASE_URL": "http://files.example.com"}
    assert load(FileAccessAgentSettings, environ).file_access_agent_base_url == "http://files.example.com"
    production = {"ENVIRONMENT": "production"}
    assert "https" in problems_of(FileAccessAgentSettings, environ | production)["FILE_ACCESS_AGENT_BASE_URL"].allowed
    load(FileAccessAgentSettings, production | {"FILE_ACCESS_AGENT_BASE_URL": "https://files.example.com"})


@pytest.mark.parametrize(
    "url", ["files.example.com", "ftp://files", "http://", "http://a b", "http://a?x=1", "http://a\n"]
)
def test_what_is_no_address_is_refused(url: str):
    assert problems_of(FileAccessAgentSettings, {"FILE_ACCESS_AGENT_BASE_URL": url})


def test_each_storage_backend_asks_for_its_own_variables():
    assert set(problems_of(StorageSettings, {})) == {"STORAGE_BACKEND"}
    assert set(problems_of(StorageSettings, {"STORAGE_BACKEND": "local"})) == {"LOCAL_STORAGE_DIR"}
    assert set(problems_of(StorageSettings, {"STORAGE_BACKEND": "minio", "MINIO_ENDPOINT_URL": "nowhere"})) == {
        "MINIO_ENDPOINT_URL",
        "MINIO_BUCKET",
        "MINIO_ACCESS_KEY",
        "MINIO_SECRET_KEY",
    }
    load(StorageSettings, {"STORAGE_BACKEND": "local", "LOCAL_STORAGE_DIR": "/data"})


@pytest.mark.parametrize("url", ["nats://localhost:4222", "tls://a:4222,tls://b:4222"])
def test_the_bus_may_have_several_servers(url: str):
    assert load(NatsSettings, {"NATS_URL": url}).nats_url == url


class Range(Struct, frozen=True, kw_only=True):
    low: int = 0
    high: int = 10

    def conflicts(self) -> Iterator[Problem]:
        if self.low > self.high:
            yield Problem("LOW", str(self.low), f"at most HIGH ({self.high})")


class Both(Struct, frozen=True, kw_only=True):
    range: Range
    name: str


def test_fields_that_contradict_each_other_are_named_with_all_other_problems():
    assert load(Range, {"LOW": "3"}).low == 3
    assert set(problems_of(Both, {"LOW": "11"})) == {"LOW", "NAME"}


def test_the_description_lists_every_variable_with_what_a_person_needs_to_set_it():
    described = {variable.variable: variable for variable in describe(Example)}
    assert list(described) == [
        "ENVIRONMENT",
        "LOG_LEVEL",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "INNER_RATIO",
        "NAME",
        "PORT",
        "MODE",
        "VERBOSE",
        "DIRECTORY",
        "SIGNING_KEY",
    ]
    assert described["NAME"][:4] == ("NAME", None, True, "a name")
    assert described["VERBOSE"].default == "off"
    assert described["DIRECTORY"].default == ""
    assert described["SIGNING_KEY"].secret
    assert {v.needed_when for v in describe(StorageSettings)} == {
        None,
        "STORAGE_BACKEND=minio",
        "STORAGE_BACKEND=local",
    }


@pytest.mark.parametrize(
    "cls", [FileAccessAgentSettings, NatsSettings, OAuthClientSettings, ServiceSettings, StageSettings, StorageSettings]
)
def test_every_shared_variable_is_described(cls: type[Struct]):
    assert all(variable.description for variable in describe(cls))
