"""Where the command finds the service, and how it keeps its secrets."""

from __future__ import annotations

from pathlib import Path

import pytest

from converter.command.accounts import Account, account, config_file, from_variables, keep
from converter.command.codes import ExitCode
from converter.command.problems import Problem

KNOWN = Account(
    url="https://a.example", token_url="https://i.example/token", client_id="one", client_secret='s"e\\c\nr€t 😀'
)
ENVIRON = {
    "CONVERTER_URL": "https://b.example",
    "CONVERTER_TOKEN_URL": "https://j.example/token",
    "CONVERTER_CLIENT_ID": "two",
    "CONVERTER_CLIENT_SECRET": "there",
}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path


def test_a_profile_comes_back_as_it_was_kept_and_only_its_owner_can_read_it():
    keep("other", KNOWN)
    file = keep("default", KNOWN)
    assert file == config_file()
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    assert account("other", None, {}) == account(None, None, {}) == KNOWN


def test_a_file_that_others_can_read_is_refused():
    keep("default", KNOWN).chmod(0o640)
    with pytest.raises(Problem, match="chmod 600") as refused:
        account(None, None, {})
    assert refused.value.code is ExitCode.USAGE


@pytest.mark.parametrize("content", ["[profiles", "[profiles.default]\nurl = 1\n", "[profiles.default]\nurI = 'x'\n"])
def test_a_file_that_is_not_understood_is_told(content: str):
    file = keep("default", KNOWN)
    file.write_text(content)
    with pytest.raises(Problem, match="not understood"):
        account(None, None, {})


def test_a_name_that_would_be_something_else_in_the_file_is_refused():
    with pytest.raises(Problem, match="name"):
        keep("a]\n[b", KNOWN)


def test_what_is_named_goes_before_the_environment_and_that_before_the_profile(home: Path):
    keep("default", KNOWN)
    env_file = home / "stack.env"
    env_file.write_text(
        "# made up\nGATEWAY_URL=http://127.0.0.1:4000\nexport TOKEN_URL='http://127.0.0.1:4010/token'\n"
        "CLIENT_ID=three\nCLIENT_SECRET=x\nAUDIENCE=aud\nPIDS=a=1,b=2\n"
    )
    assert account(None, None, {}).url == "https://a.example"
    assert account(None, None, ENVIRON).url == "https://b.example"
    assert account("default", None, ENVIRON).url == "https://a.example"
    found = account("default", env_file, ENVIRON)
    assert (found.url, found.token_url, found.client_id, found.audience) == (
        "http://127.0.0.1:4000",
        "http://127.0.0.1:4010/token",
        "three",
        "aud",
    )


def test_one_places_secret_never_goes_to_anothers_issuer():
    keep("default", KNOWN)
    with pytest.raises(Problem, match="client_id, client_secret"):
        account(None, None, {"CONVERTER_URL": "https://b.example", "CONVERTER_TOKEN_URL": "https://j.example/token"})


def test_a_secret_may_be_in_a_file(home: Path):
    (home / "secret").write_text("from a file\n")
    variables = {**ENVIRON, "CONVERTER_CLIENT_SECRET": "", "CONVERTER_CLIENT_SECRET_FILE": str(home / "secret")}
    found = from_variables(variables)
    assert found
    assert found.client_secret == "from a file"
    with pytest.raises(Problem, match="No such file"):
        from_variables({**variables, "CONVERTER_CLIENT_SECRET_FILE": str(home / "absent")})


def test_without_a_service_it_is_said_how_to_name_one():
    with pytest.raises(Problem, match="converter login"):
        account(None, None, {})
    with pytest.raises(Problem, match="names no gateway"):
        account("absent", None, ENVIRON)


def test_secrets_are_not_shown():
    assert KNOWN.client_secret not in repr(KNOWN)
