"""The daemon of a machine reads which command works on it."""

from __future__ import annotations

from support.fleets.held_lease import INFO

from dora_cluster.remote_program import lease
from dora_config.protocol.snapshot import MachineOperation
from dora_daemon.agent import sampler


def test_the_daemon_reads_the_holder() -> None:
    assert sampler.lease_file() == lease.lease_file()
    lease.take(INFO, 60.0)
    found = sampler.lease_holder()
    assert found is not None
    assert found == MachineOperation(
        command="dora cluster upgrade fleet.yml", operator="ada@desk", since=found.since
    )
    lease.give_back(INFO["key"], 60.0)
    assert sampler.lease_holder() is None
