"""Which keys are tried, in which order, and the error that lists them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import paramiko
import pytest
from paramiko.auth_strategy import AuthFailure, AuthResult

from dora_cluster.ssh import login
from dora_cluster.ssh.login import Keys, NotAccepted, load, refusal
from dora_cluster.ssh.settings import settings_for

LISTED, OTHER = paramiko.ECDSAKey.generate(), paramiko.ECDSAKey.generate()
vars(LISTED)["comment"], vars(OTHER)["comment"] = "listed", "other"


class FakeAgent:
    """An agent with two keys."""

    def __init__(self, _path: str) -> None: ...

    def get_keys(self) -> tuple[paramiko.PKey, ...]:
        return OTHER, LISTED

    def close(self) -> None: ...


@pytest.fixture
def folder(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of keys; the agent has one of them."""
    monkeypatch.setattr(login, "_Agent", FakeAgent)
    path = home / ".ssh"
    path.mkdir()
    (path / "one.pub").write_text(f"{LISTED.get_name()} {LISTED.get_base64()} remark\n")
    return path


def tried(config: str, identity_file: str | None = None) -> list[str]:
    (Path.home() / ".ssh/config").write_text(config)
    keys = Keys(settings_for("robot", "me", None), identity_file)
    return [str(one).removeprefix(f"{Path.home()}/") for one in keys.get_sources()]


def test_keys_of_files_are_first_also_in_the_agent(folder: Path) -> None:
    agent = ["a key of the agent (listed)", "a key of the agent (other)"]
    given = "IdentityFile ~/.ssh/one\nIdentityFile ~/.ssh/two\n"
    assert tried(given) == [*agent, ".ssh/two"]
    assert tried(f"{given}IdentitiesOnly yes\n") == [agent[0], ".ssh/two"]
    assert tried(given, "~/.ssh/three") == [*agent, ".ssh/three", ".ssh/two"]


def test_default_keys_are_tried_if_they_exist(folder: Path) -> None:
    (folder / "id_ed25519").touch()
    agent = ["a key of the agent (other)", "a key of the agent (listed)"]
    assert tried("") == [*agent, ".ssh/id_ed25519"]
    assert tried("", "~/.ssh/three") == [*agent, ".ssh/three"]


class FakeTransport:
    """A server that accepts a key and also wants a password."""

    def auth_publickey(self, user: str, key: paramiko.PKey) -> list[str]:
        assert (user, key) == ("me", OTHER)
        return ["password"]


def test_a_key_that_is_not_enough(folder: Path) -> None:
    (folder / "config").write_text("")
    first, *_ = Keys(settings_for("robot", "me", None), None).get_sources()
    with pytest.raises(NotAccepted, match="accepted, but password is also required"):
        first.authenticate(cast(paramiko.Transport, FakeTransport()))


def test_files_without_a_usable_key(folder: Path) -> None:
    (folder / "broken").write_text("not a key\n")
    for name, reason in (("broken", "not a usable key"), ("none", "no such file")):
        with pytest.raises(NotAccepted, match=reason):
            load(str(folder / name))


@pytest.mark.parametrize(
    ("errors", "lines"),
    [
        ([], ["none: this account has no key"]),
        ([paramiko.AuthenticationException("no"), NotAccepted("gone")], ["0: refused", "1: gone"]),
        (
            [paramiko.BadAuthenticationType("Bad authentication type", ["password"])],
            ["0: Bad authentication type; allowed types: ['password']"],
        ),
        (
            [paramiko.SSHException("No existing session"), NotAccepted("gone")],
            ["0: No existing session", "then the server disconnected (after too many keys?"],
        ),
    ],
)
def test_the_error_lists_what_was_tried(
    folder: Path, errors: list[Exception], lines: list[str]
) -> None:
    (folder / "config").write_text("")
    result: Any = AuthResult(cast(Any, None), cast(Any, list(enumerate(errors))))
    text = str(refusal("robot (robot)", settings_for("robot", "me", 7), AuthFailure(result)))
    assert text.startswith("robot (robot): me may not log in with the keys that were tried:\n  ")
    shown = text.splitlines()[1:-1]
    assert len(shown) == len(lines)
    assert all(one.startswith(f"  {line}") for one, line in zip(shown, lines, strict=True))
    assert "(ssh-copy-id -p 7 me@robot), or check `user`" in text
