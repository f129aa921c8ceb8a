"""The daemon of a machine reads which command has locked it."""

from __future__ import annotations

from support.cluster.real_lock import held_lock
from support.waiting import wait_until

from dora_cluster.remote_program import lock
from dora_config.protocol.snapshot import MachineOperation
from dora_daemon.agent import sampler


def test_the_daemon_reads_the_holder() -> None:
    assert sampler.lock_file() == lock.lock_file()
    with held_lock():
        found = sampler.lock_holder()
        assert found is not None
        assert found == MachineOperation(
            command="dora cluster upgrade fleet.yml", operator="ada@desk", since=found.since
        )
    wait_until(lambda: sampler.lock_holder() is None, what="the end of the holder")
