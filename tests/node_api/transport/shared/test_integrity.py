"""State that an exception left half changed is refused afterwards."""

from __future__ import annotations

import threading

import pytest

from dora_node_api.errors import NodeInterrupted
from dora_node_api.transport.shared.errors import PoolExhausted
from dora_node_api.transport.shared.interruption import Integrity


class Interrupted(Exception):
    """Raised by a signal handler."""


def wait() -> None:
    raise Interrupted


def test_an_exception_in_a_change_breaks_it() -> None:
    integrity = Integrity()
    with integrity:
        pass
    integrity.check()
    with pytest.raises(Interrupted), integrity:
        raise Interrupted
    with pytest.raises(NodeInterrupted, match="set a flag"):
        integrity.check()
    with pytest.raises(NodeInterrupted), integrity:
        pytest.fail("the block must not run")


@pytest.mark.parametrize("error", [NodeInterrupted("x"), PoolExhausted(1, 1, {})])
def test_errors_of_the_package_break_nothing(error: Exception) -> None:
    integrity = Integrity()
    with pytest.raises(type(error)), integrity:
        raise error
    integrity.check()


def test_an_exception_in_a_wait_breaks_nothing() -> None:
    integrity = Integrity()
    with pytest.raises(Interrupted), integrity:
        integrity.wait(wait)
    integrity.check()
    with pytest.raises(Interrupted), integrity:
        raise Interrupted
    with pytest.raises(NodeInterrupted):
        integrity.check()


def test_a_wait_of_another_thread_hides_no_broken_change() -> None:
    integrity = Integrity()

    def other() -> None:
        with pytest.raises(Interrupted):
            integrity.wait(wait)

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    with pytest.raises(Interrupted), integrity:
        raise Interrupted
    with pytest.raises(NodeInterrupted):
        integrity.check()
