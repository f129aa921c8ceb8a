"""The command that has locked a machine, as the daemon reads it."""

from __future__ import annotations

import time

import pytest
from support.fleets.held_lock import held_lock
from support.waiting import wait_until

from dora_config.protocol.snapshot import MachineOperation
from dora_daemon.agent import sampler
from dora_daemon.agent.sampler import lock_holder


def test_the_holder_until_it_ends() -> None:
    assert lock_holder() is None
    with held_lock():
        found = lock_holder()
        assert found is not None
        assert abs(found.since - time.time()) < 300
        assert found == MachineOperation(
            command="dora cluster upgrade fleet.yml", operator="ada@desk", since=found.since
        )
        text = sampler.lock_file().read_bytes()
    wait_until(lambda: lock_holder() is None, what="the end of the holder")
    sampler.lock_file().parent.mkdir(parents=True, exist_ok=True)
    sampler.lock_file().write_bytes(text)  # as after a power cut
    assert lock_holder() is None


@pytest.mark.parametrize(
    "result",
    [
        "no json",
        "[]",
        "{}",
        '{"holder": PID, "command": 7, "operator": "", "since": 0}',
        '{"holder": PID, "command": "", "operator": "", "since": "soon"}',
        '{"holder": 1, "command": "", "operator": "", "since": 0}',
        "[" * 10_000,
        "x" * (sampler.MAX_LOCK_TEXT + 1),
    ],
)
def test_other_text_is_ignored(result: str) -> None:
    with held_lock() as holder:
        text = result.replace("PID", str(holder))
        sampler.lock_file().write_text(f'{{"result": {text}}}\n')
        assert lock_holder() is None
