"""`dora record --attach` in front of a coordinator that accepts no connection now."""

from __future__ import annotations

from support.command_line import Dora
from support.refusing_coordinator import refusing


def test_the_command_does_not_go_on_as_if_no_coordinator_ran(dora: Dora) -> None:
    with refusing(503) as cluster:
        port = str(cluster.coordinator.port)
        shown = dora("record", "--attach", "flow", "--coordinator-port", port)
    assert shown.code != 0
    assert "(too many connections): try again in a minute" in shown.err
