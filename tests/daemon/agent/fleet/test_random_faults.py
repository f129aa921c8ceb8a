"""Random kills of real processes, by seed; afterwards each node runs once, receives messages over
the link, and `list` shows it.
"""

from __future__ import annotations

import os
import random
import signal
from contextlib import suppress
from pathlib import Path

import pytest
from support.fleets.daemons import RealFleet, is_running, real_fleet
from support.fleets.linked_fleet import link_of
from support.runner.found_runners import list_runners
from support.waiting import wait_until
from support.workspace import Workspace

from dora_daemon.process_tree.runtime_dir import runtime_root

pytestmark = pytest.mark.integration

MACHINES = ("robot", "station")
# as the defaults, but a crash loop waits for 2 s only
SETTINGS = ("--set", "recovery_backoff=2")

NODE = """
    import os
    import sys
    from pathlib import Path
    from dora import Node

    node = Node()
    name = sys.argv[1]
    Path("alive", f"{name}-{os.getpid()}").touch()
    with Path("received", name).open("a") as received:
        for event in node:
            if event["type"] == "INPUT" and event["id"] == "tick":
                node.send_output("beat", b"x")
            elif event["type"] == "INPUT":
                print("beat", file=received, flush=True)
"""


def beats(workspace: Workspace) -> dict[str, int]:
    """Return the size of the messages that each node has received from the other machine."""
    return {path.name: path.stat().st_size for path in (workspace.path / "received").iterdir()}


def living(workspace: Workspace) -> list[str]:
    """Ids of the nodes whose processes run, one for each process."""
    found = [path.name.rsplit("-", 1) for path in (workspace.path / "alive").iterdir()]
    return sorted(node for node, pid in found if is_running(int(pid)))


def dataflow(workspace: Workspace) -> Path:
    workspace.node("sitter", NODE)
    for folder in ("alive", "received"):
        (workspace.path / folder).mkdir()
    nodes = [
        {
            "id": f"{machine}-{index}",
            "path": "sitter.py",
            "args": f"{machine}-{index}",
            "inputs": {"tick": "dora/timer/millis/50", "far": f"{other}-{index}/beat"},
            "outputs": ["beat"],
            "deploy": {"machine": machine},
        }
        for machine, other in (MACHINES, MACHINES[::-1])
        for index in range(2)
    ]
    return workspace.dataflow({"nodes": nodes})


def fault(fleet: RealFleet, dice: random.Random) -> str:
    """Cause one fault; return its description."""
    runners = [found for found in list_runners(runtime_root()) if found.alive]
    machine = dice.choice(MACHINES)
    daemon = fleet.daemons[machine]
    kinds = ("coordinator", "daemon", "daemon", "hand over", "runner", "machine", "link")
    match dice.choice(kinds):
        case "coordinator" if fleet.coordinator.process.process.poll() is None:
            fleet.coordinator.process.kill()
            return "kill the coordinator"
        case "daemon":
            daemon.kill()
            return f"kill the daemon of {machine}"
        case "hand over" if daemon.process.poll() is None:
            daemon.send_signal(signal.SIGUSR2)
            daemon.wait()  # one that has just been started may simply die of it
            return f"have the daemon of {machine} hand over"
        case "runner" if runners:
            chosen = dice.choice(runners)
            with suppress(ProcessLookupError):
                os.kill(chosen.entry.pid, signal.SIGKILL)
            return f"kill the runner of {chosen.entry.machine_id}"
        case "link" if runners:
            with suppress(ProcessLookupError, ValueError, AssertionError):
                os.kill(link_of(machine), signal.SIGKILL)
            return f"kill the link of {machine}"
        case "machine":
            daemon.kill()
            for found in runners:
                if found.entry.machine_id == machine:
                    with suppress(ProcessLookupError):
                        os.kill(found.entry.pid, signal.SIGKILL)
            return f"power off {machine}"
        case _:
            heal(fleet, dice.choice(("coordinator", *MACHINES)))
            return "start something again"


def heal(fleet: RealFleet, what: str) -> None:
    if what == "coordinator":
        if fleet.coordinator.process.process.poll() is not None:
            fleet.restart_coordinator()
        return
    if fleet.daemons[what].process.poll() is not None:
        fleet.start_daemon(what, wait=False)


@pytest.mark.parametrize("seed", range(2))
def test_after_random_faults_every_node_runs_exactly_once(workspace: Workspace, seed: int) -> None:
    dice = random.Random(seed)
    flow = dataflow(workspace)
    expected = sorted(f"{machine}-{index}" for machine in MACHINES for index in range(2))
    story: list[str] = []
    with real_fleet(workspace, *MACHINES, settings=SETTINGS) as fleet:
        fleet.start(flow)
        for _ in range(6):
            story.append(fault(fleet, dice))
            if dice.random() < 0.5:
                wait_until(lambda: len(living(workspace)) <= 4, what="a breath")
        for what in ("coordinator", *MACHINES):
            heal(fleet, what)
        try:
            fleet.wait_for_status("Running")
            wait_until(
                lambda: living(workspace) == expected,
                what=lambda: f"each node once; there are {living(workspace)}",
            )
            assert fleet.listed()[-1].status == "Running"
            before = beats(workspace)
            wait_until(
                lambda: all(beats(workspace)[node] > before[node] for node in expected),
                what=lambda: f"a message at every node: {before}, {beats(workspace)}",
            )
            fleet.dora("stop")
            wait_until(lambda: living(workspace) == [], what="all nodes to end")
        except AssertionError as error:
            logs = "\n".join(
                one.stderr for one in (fleet.coordinator.process, *fleet.daemons.values())
            )
            raise AssertionError(f"seed {seed}: {'; '.join(story)}\n{error}\n{logs}") from error
