"""The fault table of a fleet: process x kind x phase, on real processes, each row asserted.

After each fault and its recovery the dataflow runs, every node exactly once; what the list says is
true at every moment; nothing is lost or doubled but what a killed process had in its hands.
"""

from __future__ import annotations

import pytest
from support.fault_fleet import fault_fleet
from support.fault_flow import QUEUE
from support.fault_rows import Row, play, start, stop
from support.workspace import Workspace

pytestmark = pytest.mark.timeout(240)

IN_HAND = 2
"""Messages that a node has taken when it is killed."""
IN_QUEUE = QUEUE + IN_HAND
"""Messages that go with a runner's queues."""

COORDINATOR = (
    Row("running", "coordinator", "kill"),
    Row("running", "coordinator", "stop 4"),
    Row("recovering", "coordinator", "kill", lost=IN_QUEUE),
    Row("stopping", "coordinator", "kill"),
    Row("preparing", "coordinator", "kill", "fails"),
    Row("preparing", "coordinator", "stop 4", "either"),
    Row("linking", "coordinator", "kill", "fails"),
)
DAEMON = (
    Row("running", "daemon robot", "kill", shows="Degraded"),
    Row("running", "daemon station", "stop 4", shows="Degraded"),
    Row("recovering", "daemon station", "kill", lost=IN_QUEUE),
    Row("recovering", "daemon robot", "kill", lost=IN_QUEUE),
    Row("stopping", "daemon station", "kill"),
    Row("preparing", "daemon robot", "kill", "fails"),
    Row("preparing", "daemon station", "stop 4", "fails"),
    Row("linking", "daemon station", "kill", "fails"),
)
RUNNER = (
    Row("running", "runner robot", "kill", source_lost=True),
    Row("running", "runner station", "kill", lost=IN_QUEUE),
    Row("running", "runner station", "stop 3"),
    Row("recovering", "runner robot", "kill", lost=IN_QUEUE, source_lost=True),
    Row("recovering", "runner station", "kill", lost=IN_QUEUE),
    Row("stopping", "runner station", "kill"),
    Row("preparing", "runner robot", "kill", "fails"),
    Row("linking", "runner robot", "kill", "fails"),
)
LINK = (
    Row("running", "link robot", "kill"),
    Row("running", "link station", "kill"),
    Row("running", "link station", "stop 3"),
    Row("recovering", "link robot", "kill", lost=IN_QUEUE),
    Row("recovering", "link station", "kill", lost=IN_QUEUE),
    Row("stopping", "link station", "kill"),
    Row("preparing", "link robot", "kill"),
    Row("linking", "link robot", "kill"),
    Row("linking", "link station", "kill"),
)
NODE = (
    Row("running", "source", "kill"),
    Row("running", "source", "stop 2"),
    Row("running", "sink", "kill", lost=IN_HAND),
    Row("running", "sink", "stop 2"),
    Row("recovering", "source", "kill", lost=IN_QUEUE),
    Row("recovering", "sink", "kill", lost=IN_QUEUE),
    Row("stopping", "sink", "kill"),
    Row("preparing", "source", "kill", "either"),
    Row("linking", "sink", "kill", "either"),
)
MACHINE = (
    Row("running", "machine robot", "kill", source_lost=True, shows="Degraded"),
    Row("running", "machine station", "kill", lost=IN_QUEUE, shows="Degraded"),
    Row("running", "machine station", "stop 4", shows="Degraded"),
    Row("recovering", "machine robot", "kill", lost=IN_QUEUE, source_lost=True),
    Row("stopping", "machine station", "kill"),
    Row("preparing", "machine robot", "kill", "fails"),
    Row("linking", "machine robot", "kill", "fails"),
)
NETWORK = (
    Row("running", "network robot", "cut 5", shows="Degraded"),
    Row("recovering", "network station", "cut 4", lost=IN_QUEUE),
    Row("stopping", "network station", "cut 4"),
    Row("preparing", "network robot", "cut 4", "fails"),
    Row("linking", "network station", "cut 4", "fails"),
)
TABLE = {
    "coordinator": COORDINATOR,
    "daemon": DAEMON,
    "runner": RUNNER,
    "link": LINK,
    "node": NODE,
    "machine": MACHINE,
    "network": NETWORK,
}
UNDER_WAY = ("running", "recovering", "stopping")
"""Phases whose rows want a dataflow that runs; a stop ends it."""


def play_all(workspace: Workspace, rows: tuple[Row, ...], *, cuttable: bool = False) -> None:
    with fault_fleet(workspace, cuttable=cuttable) as fleet:
        runs = False
        for row in rows:
            if row.phase in UNDER_WAY and not runs:
                start(fleet)
            elif row.phase not in UNDER_WAY and runs:
                stop(fleet)
            play(fleet, row)
            runs = row.phase in ("running", "recovering")
        if runs:
            stop(fleet)


@pytest.mark.parametrize("process", TABLE)
def test_a_fault_of(workspace: Workspace, process: str) -> None:
    play_all(workspace, TABLE[process])
