"""Reload on save for `dora start`: failures are printed."""

from __future__ import annotations

from concurrent.futures import Future
from contextlib import nullcontext

import pytest

from dora_cli.live import watched_start
from dora_config.access import Endpoint


def test_a_file_that_disappears_while_it_is_sent_ends_one_reload(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def reload(*_: object) -> None:
        raise FileNotFoundError(2, "No such file or directory", "talker.py")

    monkeypatch.setattr(watched_start, "CoordinatorClient", nullcontext)
    monkeypatch.setattr(watched_start, "reload", reload)
    problem = watched_start._reload(Endpoint("127.0.0.1", 1), "flow", "talker")
    assert problem == "talker.py: No such file or directory"


def test_the_end_of_watching_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    watching: Future[None] = Future()
    watching.add_done_callback(watched_start._warn_of_failure)
    error = PermissionError(13, "Permission denied", "talker.py")
    watching.set_exception(ExceptionGroup("tasks", [error]))
    printed = capsys.readouterr().err
    assert printed == "warning: nodes are not reloaded any more: talker.py: Permission denied\n"
