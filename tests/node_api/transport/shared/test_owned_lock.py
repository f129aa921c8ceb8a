"""A lock that reports its owner."""

from __future__ import annotations

import threading

from dora_node_api.transport.shared.interruption import OwnedLock


def test_only_the_holder_owns_it() -> None:
    lock = OwnedLock()
    owned: list[bool] = []
    assert not lock.owned()
    with lock:
        assert lock.owned()
        thread = threading.Thread(target=lambda: owned.append(lock.owned()))
        thread.start()
        thread.join()
    assert owned == [False]
    assert not lock.owned()


def test_a_function_runs_only_if_the_lock_is_free() -> None:
    lock = OwnedLock()
    calls: list[str] = []
    lock.run_if_free(lambda: calls.append("free"))
    assert not lock.owned()
    with lock:
        thread = threading.Thread(target=lock.run_if_free, args=(lambda: calls.append("held"),))
        thread.start()
        thread.join()
        lock.run_if_free(lambda: calls.append("own"))
        assert lock.owned()
    assert calls == ["free", "own"]
