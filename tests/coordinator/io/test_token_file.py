"""Tokens of a coordinator whose account's files cannot be written."""

from __future__ import annotations

import errno
import logging
import os
import stat
from pathlib import Path

import pytest
from support.fleets.coordinator import token_file

from dora_config.access import successor_path
from dora_coordinator.io.authority import Authority
from dora_coordinator.io.token_file import TokenFile, TokenFileError, given_token


def coordinator_files(folder: Path) -> tuple[Authority, str, Path]:
    """The authority of a coordinator, its token, and the path of its records of tokens."""
    authority = Authority(folder / "authority")
    return authority, given_token(authority), folder / "tokens.json"


@pytest.mark.usefixtures("home")
def test_a_rotation_continues_without_files_of_the_account(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    authority, given, path = coordinator_files(tmp_path)
    tokens = TokenFile(given, authority, path, ["127.0.0.1"], 6013)
    token_file().chmod(0o644)
    successor_path("localhost", 6013).mkdir(parents=True)
    with caplog.at_level(logging.ERROR):
        token = tokens.rotate(0.0)
        again = TokenFile(given, authority, path, ["127.0.0.1"], 6013)
    assert tokens.current == again.current == token
    assert tokens.check(given) is None
    assert str(token_file()) in caplog.text
    assert str(successor_path("localhost", 6013)) in caplog.text
    assert token.secret not in caplog.text


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("rotated", [False, True], ids=["first", "second"])
def test_a_disk_that_fails_after_the_replacement_changes_no_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rotated: bool
) -> None:
    authority, given, path = coordinator_files(tmp_path)
    tokens = TokenFile(given, authority, path, ["127.0.0.1"], 6013)
    if rotated:
        given = str(tokens.rotate(0.0))
    failures = [errno.EIO]

    def sync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode) and failures:
            raise OSError(failures.pop(), "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", sync)
        with pytest.raises(OSError, match="Input/output error"):
            tokens.rotate(60.0)
    assert not failures
    again = TokenFile(given, authority, path, ["127.0.0.1"], 6013)
    assert str(tokens.current) == str(again.current) == given


@pytest.mark.usefixtures("home")
def test_a_token_that_cannot_be_stored_is_not_used(tmp_path: Path) -> None:
    authority, given, path = coordinator_files(tmp_path)
    tokens = TokenFile(given, authority, path, ["127.0.0.1"], 6013)
    path.mkdir()  # no file can replace it
    with pytest.raises(OSError, match="directory"):
        tokens.rotate(0.0)
    assert str(tokens.current) == given
    assert tokens.check(given) is not None
    assert token_file().read_text().strip() == given


@pytest.mark.usefixtures("home")
def test_a_torn_record_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    authority, given, path = coordinator_files(tmp_path)
    path.write_text('{"successor": ')
    with pytest.raises(TokenFileError, match=rf"^{path}: not a record .*; delete it"):
        TokenFile(given, authority, path, ["127.0.0.1"], 6013)
