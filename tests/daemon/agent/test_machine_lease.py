"""The command that works on a machine, as the daemon reads it."""

from __future__ import annotations

import os
import time

import pytest
from support.fleets.held_lease import held_lease

from dora_config.protocol.snapshot import MachineOperation
from dora_daemon.agent import sampler
from dora_daemon.agent.sampler import lease_file, lease_holder


def test_the_holder_until_it_ends() -> None:
    assert lease_holder() is None
    with held_lease():
        found = lease_holder()
        assert found is not None
        assert abs(found.since - time.time()) < 300
        assert found == MachineOperation(
            command="dora cluster upgrade fleet.yml", operator="ada@desk", since=found.since
        )
    assert lease_holder() is None


def test_a_record_that_was_not_touched_does_not_count() -> None:
    """As after a power cut."""
    with held_lease():
        before = time.time() - 61
        os.utime(lease_file(), (before, before))
        assert lease_holder() is None


@pytest.mark.parametrize(
    "result",
    [
        "no json",
        "[]",
        "{}",
        '{"seconds": 60, "command": 7, "operator": "", "since": 0}',
        '{"seconds": 60, "command": "", "operator": "", "since": "soon"}',
        '{"seconds": "60", "command": "", "operator": "", "since": 0}',
        "[" * 10_000,
        "x" * (sampler.MAX_LEASE_TEXT + 1),
    ],
)
def test_other_text_is_ignored(result: str) -> None:
    with held_lease():
        lease_file().write_text(f'{{"result": {result}}}\n')
        assert lease_holder() is None
