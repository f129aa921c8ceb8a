"""Sources and checks of addresses and tokens."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from dora_config.access import (
    AccessError,
    Endpoint,
    Moved,
    config_dir,
    current_place,
    endpoint,
    ensure_token,
    find_token,
    forget_moves,
    moved_path,
    read_moved,
    read_successor,
    state_dir,
    successor_path,
    write_moved,
    write_private,
    write_successor,
)
from dora_config.access_token import Successor, Token

AUTHORITY = bytes(range(32))


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"HOME": str(tmp_path)}


def test_folders_follow_xdg(tmp_path: Path, environ: dict[str, str]) -> None:
    assert config_dir(environ) == tmp_path / ".config" / "dora"
    assert state_dir(environ) == tmp_path / ".local" / "state" / "dora"
    environ |= {"XDG_CONFIG_HOME": "/c", "XDG_STATE_HOME": "/s"}
    assert (config_dir(environ), state_dir(environ)) == (Path("/c/dora"), Path("/s/dora"))


def test_arguments_win_over_the_environment(environ: dict[str, str]) -> None:
    assert endpoint(environ=environ) == Endpoint("127.0.0.1", 6013)
    environ |= {"DORA_COORDINATOR_ADDR": "192.0.2.1", "DORA_COORDINATOR_PORT": "7000"}
    assert endpoint(environ=environ) == Endpoint("192.0.2.1", 7000)
    assert endpoint("robot", 1, environ=environ) == Endpoint("robot", 1)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("192.0.2.1:7000", ("192.0.2.1", 7000)),
        ("robot", ("robot", 6013)),
        ("[::1]:7000", ("::1", 7000)),
        ("::1", ("::1", 6013)),
    ],
)
def test_an_address_may_have_a_port(
    environ: dict[str, str], text: str, place: tuple[str, int]
) -> None:
    assert endpoint(text, environ=environ)[:2] == place
    assert endpoint(environ={**environ, "DORA_COORDINATOR_ADDR": text})[:2] == place


def test_ports_that_differ_or_are_invalid(environ: dict[str, str]) -> None:
    assert endpoint("robot:7", 7, environ=environ).port == 7
    with pytest.raises(AccessError, match="robot:7 and the port 8 differ"):
        endpoint("robot:7", 8, environ=environ)
    with pytest.raises(AccessError, match="robot:x is 'x'"):
        endpoint("robot:x", environ=environ)


@pytest.mark.parametrize("port", ["", "0", "65536", "x", "-1", "6013 "])
def test_invalid_port_in_the_environment_is_an_error(environ: dict[str, str], port: str) -> None:
    with pytest.raises(AccessError, match="DORA_COORDINATOR_PORT"):
        endpoint(environ={**environ, "DORA_COORDINATOR_PORT": port})


def test_urls_of_both_families() -> None:
    assert Endpoint("192.0.2.1", 1).url("/x") == "ws://192.0.2.1:1/x"
    assert Endpoint("::1", 1).url("/x", scheme="http") == "http://[::1]:1/x"


def test_token_is_created_once_and_private(environ: dict[str, str]) -> None:
    assert find_token(environ) is None
    token, made = ensure_token(AUTHORITY, environ)
    assert made == config_dir(environ) / "token"
    assert made.stat().st_mode & 0o777 == 0o600
    assert made.parent.stat().st_mode & 0o777 == 0o700
    assert ensure_token(AUTHORITY, environ) == (token, None)
    assert [path.name for path in made.parent.iterdir()] == ["token"]
    secret = Token.parse(token).secret
    assert Endpoint("h", 1, token).headers() == {"Authorization": f"Bearer {secret}"}
    assert Endpoint("h", 1, token).authority == AUTHORITY
    assert Endpoint("h", 1).headers() == {}


def test_full_disk_leaves_no_token(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    folder = config_dir(environ)
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(OSError, match="No space left on device") as raised:
            ensure_token(AUTHORITY, environ)
    assert raised.value.filename.startswith(str(folder / "token"))
    assert list(folder.iterdir()) == []


def test_a_token_that_another_process_has_just_created_is_used(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    link, other = os.link, str(Token("other", AUTHORITY))

    def link_later(source: Path, target: Path) -> None:
        write_private(target, other.encode())
        link(source, target)

    monkeypatch.setattr("os.link", link_later)
    assert ensure_token(AUTHORITY, environ) == (other, None)
    assert [path.name for path in config_dir(environ).iterdir()] == ["token"]


def test_order_of_token_sources(tmp_path: Path, environ: dict[str, str]) -> None:
    own, _ = ensure_token(AUTHORITY, environ)
    (tmp_path / "credentials").mkdir()
    environ["CREDENTIALS_DIRECTORY"] = str(tmp_path / "credentials")
    assert find_token(environ) == own
    (tmp_path / "credentials" / "dora-token").write_text("from systemd\n")
    assert find_token(environ) == "from systemd"
    environ["DORA_AUTH_TOKEN"] = "from the environment"
    assert find_token(environ) == "from the environment"


def test_token_file_readable_by_others_is_refused(environ: dict[str, str]) -> None:
    _, made = ensure_token(AUTHORITY, environ)
    assert made is not None
    made.chmod(0o640)
    with pytest.raises(AccessError, match="chmod 600"):
        find_token(environ)


def test_an_empty_token_file_is_refused(environ: dict[str, str]) -> None:
    _, made = ensure_token(AUTHORITY, environ)
    assert made is not None
    made.write_text("\n")
    with pytest.raises(AccessError, match="empty"):
        find_token(environ)


def test_token_file_without_text_is_refused(environ: dict[str, str]) -> None:
    _, made = ensure_token(AUTHORITY, environ)
    assert made is not None
    made.write_bytes(b"\xff\xfe")
    with pytest.raises(AccessError, match="does not contain a token; delete it"):
        find_token(environ)


def test_the_successor_of_a_token_is_used_at_its_address_only(environ: dict[str, str]) -> None:
    environ["DORA_AUTH_TOKEN"] = "old"
    write_successor(successor_path("::1", 6013, environ), Successor(Token("old", AUTHORITY)))
    assert endpoint("::1", environ=environ).authority == AUTHORITY
    assert endpoint("127.0.0.1", environ=environ).token == "old"
    environ["DORA_AUTH_TOKEN"] = "another"
    assert endpoint("::1", environ=environ).token == "another"


def test_a_successor_replaces_what_its_predecessors_replaced(environ: dict[str, str]) -> None:
    path = successor_path("127.0.0.1", 6013, environ)
    for secret in ("second", "third", "third"):
        write_successor(path, Successor(Token(secret, AUTHORITY), (Token("first").digest,)))
    assert path.stat().st_mode & 0o777 == 0o600
    found = read_successor(path)
    assert found is not None
    for secret in ("first", "second", "third"):
        assert Token.parse(found.replace(secret)).secret == "third"
    assert found.replace("fourth") == "fourth"


def test_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "record.json"
    write_private(path, b"old")

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left on device") as raised:
        write_private(path, b"new")
    assert raised.value.filename == str(path)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text() == "old"


@pytest.mark.parametrize(
    "text", ["\ufeffTOKEN", "TOK\nEN", "p\u00e4ss", "dora1.AbCd", f"dora1.{'A' * 43}"]
)
def test_a_damaged_token_is_refused_without_its_text(text: str, environ: dict[str, str]) -> None:
    path = config_dir(environ) / "token"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    path.chmod(0o600)
    for source, where in ((environ, str(path)), ({"DORA_AUTH_TOKEN": text}, "DORA_AUTH_TOKEN")):
        with pytest.raises(AccessError, match="copy the token") as caught:
            find_token(source)
        assert str(caught.value).startswith(f"{where}: ")
        assert text not in str(caught.value)


def test_a_damaged_successor_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "successor"
    path.write_text("\ufeffTOKEN\n")
    path.chmod(0o600)
    with pytest.raises(AccessError, match="copy the token"):
        read_successor(path)


def test_an_endpoint_is_shown_without_its_token() -> None:
    assert "secret" not in repr(Endpoint("127.0.0.1", 6013, "secret"))


def test_the_folder_is_synced_after_the_replacement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a power cut may restore the old file."""
    path = tmp_path / "file"
    synced: list[tuple[bool, bool]] = []

    def fsync(descriptor: int) -> None:
        synced.append((stat.S_ISDIR(os.fstat(descriptor).st_mode), path.exists()))
        if path.exists():
            raise OSError(errno.EINVAL, "a file system that cannot sync folders")

    monkeypatch.setattr("os.fsync", fsync)
    write_private(path, b"content")
    assert synced == [(False, False), (True, True)]
    assert path.read_bytes() == b"content"


def test_the_successor_of_a_promoted_coordinator_is_used(environ: dict[str, str]) -> None:
    path = moved_path("10.0.0.1", 6013, environ)
    moved = Moved("fd00::2", 7000, "base", ("10.0.0.1:6013",))
    write_moved(path, moved)
    assert read_moved("10.0.0.1", 6013, environ) == moved
    assert current_place("10.0.0.1", 6013, environ) == ("fd00::2", 7000)
    assert current_place("10.0.0.1", 6014, environ) == ("10.0.0.1", 6014)
    there = {**environ, "DORA_COORDINATOR_ADDR": "10.0.0.1"}
    assert str(endpoint(environ=there)) == "[fd00::2]:7000"
    assert str(endpoint("10.0.0.1", 6013, there)) == "10.0.0.1:6013", "an explicit address wins"
    path.write_text("nonsense")
    with pytest.raises(AccessError, match="not the address of a coordinator; delete it"):
        endpoint(environ=there)
    assert str(endpoint("10.0.0.1", environ=there)) == "10.0.0.1:6013"


def test_the_moves_of_one_cluster_are_forgotten(environ: dict[str, str]) -> None:
    def write(old: str, new: str) -> Path:
        path = moved_path(old, 6013, environ)
        write_moved(path, Moved(new, 6013, "base"))
        return path

    first, here = write("10.0.0.1", "10.0.0.2"), write("127.0.0.1", "10.0.0.2")
    other = write("10.1.0.1", "10.1.0.2")
    reverse = write("10.0.0.2", "10.0.0.1")
    forget_moves("10.0.0.2", 6013, "10.0.0.1:6013", environ=environ)
    assert [path.exists() for path in (first, here, reverse, other)] == [False, False, False, True]
