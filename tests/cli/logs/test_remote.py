"""Interrupts of `dora logs` with a coordinator."""

from __future__ import annotations

import pytest

from dora_cli.logs import remote
from dora_cli.logs.log_lines import EntryPrinter
from dora_config.protocol.dataflow import LogFilter


class InterruptedClient:
    def __init__(self, *_: object, or_here: bool) -> None: ...

    def __enter__(self) -> InterruptedClient:
        return self

    def __exit__(self, *_: object) -> None: ...

    def request(self, *_: object) -> None:
        raise KeyboardInterrupt


def show(*, follow: bool) -> bool:
    printer = EntryPrinter("pretty")
    return remote.show(None, None, LogFilter(), printer, follow=follow, addr=None, port=None)


def test_ctrl_c_is_the_normal_end_of_following_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "connect_now", InterruptedClient)
    assert show(follow=True)
    with pytest.raises(KeyboardInterrupt):
        show(follow=False)
