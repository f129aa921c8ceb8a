"""One task at a time holds the lock of a key; unused locks are dropped."""

from __future__ import annotations

import anyio

from dora_daemon.keyed_locks import KeyedLocks


def test_a_key_is_held_by_one_task_at_a_time() -> None:
    async def scenario() -> list[str]:
        locks = KeyedLocks[str]()
        steps: list[str] = []
        entered, leave = anyio.Event(), anyio.Event()

        async def first() -> None:
            async with locks.hold("a"):
                steps.append("first begins")
                entered.set()
                await leave.wait()
                steps.append("first ends")

        async def second() -> None:
            await entered.wait()
            async with locks.hold("b"):
                steps.append("another key")
            leave.set()
            async with locks.hold("a"):
                steps.append("second")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(first)
            tasks.start_soon(second)
        assert not locks._locks
        return steps

    assert anyio.run(scenario) == ["first begins", "another key", "first ends", "second"]


def test_a_cancelled_task_keeps_no_lock() -> None:
    async def scenario() -> None:
        locks = KeyedLocks[str]()

        async def wait_for_it() -> None:
            async with locks.hold("a"):
                raise AssertionError("held twice")

        async with anyio.create_task_group() as tasks, locks.hold("a"):
            tasks.start_soon(wait_for_it)
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
        assert not locks._locks
        with anyio.fail_after(5):
            async with locks.hold("a"):
                pass

    anyio.run(scenario)


def test_a_task_cancelled_while_the_lock_is_freed_leaves_the_next_lock_alone() -> None:
    async def scenario() -> None:
        locks = KeyedLocks[str]()
        entered, waits = anyio.Event(), anyio.CancelScope()

        async def wait_for_it() -> None:
            with waits:
                async with locks.hold("a"):
                    raise AssertionError("held twice")

        async def hold() -> None:
            async with locks.hold("a"):
                entered.set()

        async with anyio.create_task_group() as tasks:
            async with locks.hold("a"):
                tasks.start_soon(wait_for_it)
                await anyio.wait_all_tasks_blocked()
                waits.cancel()
            async with locks.hold("a"):
                await anyio.wait_all_tasks_blocked()
                tasks.start_soon(hold)
                await anyio.wait_all_tasks_blocked()
                assert not entered.is_set()
        assert entered.is_set()
        assert not locks._locks

    anyio.run(scenario)
