"""The fault table of a fleet: process x kind x phase, on real processes.

After each row the dataflow runs with every node exactly once, the status in the list was right all
the time, and only messages of killed processes are lost or repeated.
"""

from __future__ import annotations

import os
import random
from typing import TypedDict

import pytest
from support.fleets.cables import require_networks
from support.fleets.fault_fleet import FLOWING, FaultFleet, fault_fleet
from support.fleets.fault_flow import QUEUE
from support.fleets.fault_rows import UNACKNOWLEDGED, Row, fault, play, start, stop
from support.waiting import let_last
from support.workspace import Workspace


class Loss(TypedDict):
    """Messages that a row may lose and repeat; see Row."""

    lost: int
    again: int


IN_HAND = 2
"""Messages that a killed node had received."""
IN_QUEUE = QUEUE + IN_HAND
"""Messages lost with a runner's queues."""
SINK_LOST: Loss = {"lost": IN_QUEUE, "again": UNACKNOWLEDGED}
"""The station's runner is killed, by the row or before it: its queues are lost."""

COORDINATOR = (
    Row("running", "coordinator", "kill"),
    Row("running", "coordinator", "stop 4"),
    Row("recovering", "coordinator", "kill", **SINK_LOST),
    Row("stopping", "coordinator", "kill"),
    Row("preparing", "coordinator", "kill", "fails"),
    Row("preparing", "coordinator", "stop 4", "either"),
)
DAEMON = (
    Row("running", "daemon robot", "kill", shows="Degraded"),
    Row("running", "daemon station", "stop 4", shows="Degraded"),
    Row("recovering", "daemon station", "kill", **SINK_LOST),
    Row("recovering", "daemon robot", "kill", **SINK_LOST),
    Row("stopping", "daemon station", "kill"),
    Row("preparing", "daemon robot", "kill", "fails"),
    Row("preparing", "daemon station", "stop 4", "fails"),
)
RUNNER = (
    Row("running", "runner robot", "kill", source_lost=True),
    Row("running", "runner station", "kill", **SINK_LOST),
    Row("running", "runner station", "stop 3"),
    Row("recovering", "runner robot", "kill", **SINK_LOST, source_lost=True),
    Row("recovering", "runner station", "kill", **SINK_LOST),
    Row("stopping", "runner station", "kill"),
    Row("preparing", "runner robot", "kill", "fails"),
)
LINK = (
    Row("running", "link robot", "kill"),
    Row("running", "link station", "kill"),
    Row("running", "link station", "stop 3"),
    Row("recovering", "link robot", "kill", **SINK_LOST),
    Row("recovering", "link station", "kill", **SINK_LOST),
    Row("stopping", "link station", "kill"),
    Row("preparing", "link robot", "kill"),
)
NODE = (
    Row("running", "source", "kill"),
    Row("running", "source", "stop 2"),
    Row("running", "sink", "kill", lost=IN_HAND),
    Row("running", "sink", "stop 2"),
    Row("recovering", "source", "kill", **SINK_LOST),
    Row("recovering", "sink", "kill", **SINK_LOST),
    Row("stopping", "sink", "kill"),
    Row("preparing", "source", "kill", "either"),
)
MACHINE = (
    Row("running", "machine robot", "kill", source_lost=True, shows="Degraded"),
    Row("running", "machine station", "kill", **SINK_LOST, shows="Degraded"),
    Row("running", "machine station", "stop 4", shows="Degraded"),
    Row("recovering", "machine robot", "kill", **SINK_LOST, source_lost=True),
    Row("stopping", "machine station", "kill"),
    Row("preparing", "machine robot", "kill", "fails"),
)
NETWORK = (
    Row("running", "network robot", "cut 5", shows="Degraded"),
    Row("recovering", "network station", "cut 4", **SINK_LOST),
    Row("stopping", "network station", "cut 4"),
    Row("preparing", "network robot", "cut 4", "fails"),
)
CABLE = (
    Row("running", "cable", "cut 5"),
    Row("running", "cable", "cut 14", shows="Degraded"),  # exceeds every timeout, as two minutes do
    Row("recovering", "cable", "cut 4", **SINK_LOST),
    Row("stopping", "cable", "cut 4"),
)
LINKING = (
    Row("linking", "coordinator", "kill", "fails"),
    Row("linking", "daemon station", "kill", "fails"),
    Row("linking", "runner robot", "kill", "fails"),
    Row("linking", "link robot", "kill"),
    Row("linking", "link station", "kill"),
    Row("linking", "sink", "kill", "either"),
    Row("linking", "machine robot", "kill", "fails"),
    Row("linking", "network station", "cut 4", "fails"),
    Row("linking", "cable", "cut 4"),
    Row("linking", "cable", "cut 10", "fails"),
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
"""Phases whose rows need a running dataflow; a stop ends it."""


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
def test_faults_of_a_process(workspace: Workspace, process: str) -> None:
    play_all(workspace, TABLE[process])


def test_cut_between_the_links(workspace: Workspace) -> None:
    """Each machine has its own network, with a cable between them."""
    require_networks()
    play_all(workspace, CABLE + LINKING, cuttable=True)


SEEDS = tuple(int(text) for text in os.environ.get("DORA_TESTS_SEED", "1,2").split(","))
"""``DORA_TESTS_SEED=17`` replays a sequence."""
STEPS = 6


def random_fault(dice: random.Random, machine: str) -> Row:
    """Return a random fault of a process on a machine or of its network."""
    nodes = ["source", "camera"] if machine == "robot" else ["sink"]
    processes = [f"{kind} {machine}" for kind in ("daemon", "runner", "link", "machine", "network")]
    process = dice.choice([*processes, *nodes])
    if process.startswith("network"):
        return Row("running", process, f"cut {dice.choice((1, 3))}")
    return Row("running", process, dice.choice(("kill", "kill", "stop 1", "stop 3")))


def step(fleet: FaultFleet, dice: random.Random) -> str:
    """Cause one fault, or two at once; return their description."""
    machines = ["robot", "station"]
    dice.shuffle(machines)
    first, second = (random_fault(dice, machine) for machine in machines)
    if dice.random() < 0.25:
        first = Row("running", "coordinator", dice.choice(("kill", "stop 3")))
    both = dice.random() < 0.5
    with fault(fleet, first, wait=False):
        if both:
            with fault(fleet, second, wait=False):
                let_last(dice.random())
    let_last(dice.random())
    return f"{first.kind} {first.process}" + (f" and {second.kind} {second.process}" * both)


@pytest.mark.parametrize("seed", SEEDS)
def test_random_faults(workspace: Workspace, seed: int) -> None:
    """The dataflow recovers with each node once, and its messages stay in order."""
    dice = random.Random(seed)
    steps: list[str] = []
    with fault_fleet(workspace) as fleet:
        start(fleet)
        fleet.monitor.allow(FLOWING, "random faults")
        try:
            for _ in range(STEPS):
                steps.append(step(fleet, dice))
            fleet.wait_until_it_runs()
            lost = STEPS * 2 * IN_QUEUE
            problems = fleet.flow.check(lost=lost, again=UNACKNOWLEDGED, source_lost=True)
            problems += fleet.monitor.violations
            assert not problems, "\n".join(problems)
            stop(fleet)
        except AssertionError as error:
            replay = f"DORA_TESTS_SEED={seed}: {'; '.join(steps)}"
            raise AssertionError(f"{replay}\n{error}\n{fleet.state()}") from error
