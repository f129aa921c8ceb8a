"""End of the coordinator at a client's request."""

from __future__ import annotations

from support.simulation.fleets import dataflow, running_dataflows

from dora_config.protocol.control import (
    Destroy,
    Destroyed,
)


def test_destroy_is_refused_while_dataflows_run() -> None:
    fleet, _ = running_dataflows("a")
    failure = fleet.failures[fleet.request(Destroy())]
    assert failure.code == "conflict"
    assert '"a"' in failure.message
    assert not fleet.ended


def test_destroy_ends_dataflows_then_daemons_then_the_coordinator() -> None:
    fleet, daemon = running_dataflows("a")
    number = fleet.request(Destroy(force=True))
    assert fleet.failures.get(fleet.start(dataflow(late=None)))
    fleet.settle()
    answer = fleet.answers[number]
    assert isinstance(answer, Destroyed)
    assert answer.left == ()
    assert daemon.agent is None
    assert not any(runner.lives for runner in daemon.runners)
    assert fleet.ended
    (record, _), *_ = fleet.store.values()
    assert record.phase.has_ended


def test_destroy_has_a_time_limit() -> None:
    fleet, daemon = running_dataflows("a")
    fleet.disconnect(daemon)
    number = fleet.request(Destroy(force=True))
    fleet.now += fleet.settings.destroy_timeout
    fleet.fire_due()
    answer = fleet.answers[number]
    assert isinstance(answer, Destroyed)
    assert answer.left == (daemon.key,)
    assert fleet.ended
