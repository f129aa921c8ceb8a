"""Handwritten reference pages list every variable and state of the code, and no others."""

from __future__ import annotations

import ast
import re
from typing import get_args

import pytest
from support.sources import ROOT, packaged_sources

from dora_config.plugins import GROUPS, INTERFACE_GROUP
from dora_config.protocol.control import DataflowStatus
from dora_config.protocol.runner import ShownState
from dora_coordinator.state.records import PartState, Phase as DataflowPhase
from dora_daemon.runner.machine.node import NodeState
from dora_daemon.runner.machine.state import Phase as RunnerPhase

VARIABLE = re.compile(r"DORA_[A-Z][A-Z_]*[A-Z]")
DROPPED = re.compile(
    r"DORA_RUNTIME_CONFIG|DORA_ZENOH_\w*|DORA_ZENOH|DORA_RUN_PARENT_PID|DORA_HUB\w*"
)
"""Variables of dora-rs that are only removed from the environment of nodes."""


def _in_code() -> dict[str, str]:
    """Return the variables in strings of the packages, with the place of one use."""
    found: dict[str, str] = {}
    for source in packaged_sources():
        for node in ast.walk(source.tree):
            name = node.value if isinstance(node, ast.Constant) else None
            if isinstance(name, str) and VARIABLE.fullmatch(name) and not DROPPED.fullmatch(name):
                found.setdefault(name, f"{source.name}:{getattr(node, 'lineno', 0)}")
    return found


def test_environment_variables_are_documented() -> None:
    documented = set(VARIABLE.findall((ROOT / "docs/reference/environment.md").read_text()))
    used = _in_code()
    missing = [f"{place}: {name}" for name, place in used.items() if name not in documented]
    assert not missing, "not in docs/reference/environment.md:\n" + "\n".join(missing)
    unknown = documented - set(used)
    assert not unknown, f"unused variables in environment.md: {sorted(unknown)}"


STATES = {
    "A node, as users see it": get_args(ShownState),
    "A node, inside the runner": tuple(state.value for state in NodeState),
    "A dataflow, inside the runner": get_args(RunnerPhase),
    "A dataflow, as users see it": get_args(DataflowStatus),
    "A dataflow, inside the coordinator": tuple(DataflowPhase),
    "A part of a dataflow, the nodes on one machine": tuple(PartState),
}


@pytest.mark.parametrize("heading", STATES)
def test_every_state_has_a_sentence(heading: str) -> None:
    page = (ROOT / "docs/reference/states.md").read_text()
    section = page.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([\w ]+) \| (.+) \|$", section, re.MULTILINE)[1:]
    assert [state for state, _ in rows] == [str(state) for state in STATES[heading]]
    assert all(sentence.endswith(".") for _, sentence in rows)


def test_a_missing_wheel_is_not_left_out_of_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "docs/generate")
    import cli_page

    monkeypatch.setattr(cli_page, "find_command", lambda _: None)
    with pytest.raises(SystemExit, match="pip install -e packages/dora-daemon"):
        list(cli_page._service("daemon"))


@pytest.mark.parametrize("page", ["ARCHITECTURE.md", "docs/howto/plugins.md"])
def test_every_group_of_entry_points_is_described(page: str) -> None:
    rows = [line for line in (ROOT / page).read_text().splitlines() if line.startswith("| `dora.")]
    described = {name for row in rows for name in re.findall(r"`(dora\.\w+)`", row.split("|")[1])}
    assert described == {INTERFACE_GROUP, *GROUPS}
