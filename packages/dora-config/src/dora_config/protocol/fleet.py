"""Desired and observed state of a fleet, and its history; no I/O.

Desired and observed are two records: :class:`Fleet` with a generation, and :class:`ObservedCopy`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from dora_config.cluster.fleet import Rollout as Rollout
from dora_config.frozen import UnixTime
from dora_config.protocol.dataflow import DataflowSpec, Origin, workspace_of
from dora_config.protocol.envelope import Message, Query, Request
from dora_config.protocol.reports import (
    CopyState as CopyState,
    FleetReport as FleetReport,
    GetFleet as GetFleet,
    ObservedCopy as ObservedCopy,
)


class DesiredDataflow(Message):
    """One dataflow of a fleet; the name of its specification identifies it.

    ``generation`` of the specification is the generation that changed it last.
    """

    spec: DataflowSpec
    machines: tuple[str, ...] | None = None
    """Machines that get one copy each."""
    labels: dict[str, str] | None = None
    """Alternative to ``machines``: every machine with these labels."""

    @property
    def name(self) -> str:
        return self.spec.name or ""

    @property
    def is_copied(self) -> bool:
        return self.machines is not None or self.labels is not None

    def content(self) -> DesiredDataflow:
        """Return it without its generation and its operator's folder, for comparisons."""
        update = {"generation": 0, "origin": Origin(), "build_id": None, "built_on": {}}
        return self.model_copy(update={"spec": self.spec.model_copy(update=update)})

    def at_generation(self, generation: int) -> DesiredDataflow:
        spec = self.spec.model_copy(update={"generation": generation})
        return self.model_copy(update={"spec": spec})

    def machines_of(self, labels: Mapping[str, Mapping[str, str]]) -> tuple[str, ...]:
        """Return the machines that get a copy; ``labels``: those of the known machines."""
        if self.machines is not None:
            return self.machines
        wanted = (self.labels or {}).items()
        return tuple(
            sorted(
                machine
                for machine, own in labels.items()
                if all(own.get(key) == value for key, value in wanted)
            )
        )

    def copy_for(self, machine: str) -> DataflowSpec:
        """Return the specification of the copy on a machine."""
        nodes = tuple(
            node.model_copy(update={"deploy": node.deploy.model_copy(update={"machine": machine})})
            for node in self.spec.resolved.nodes
        )
        name = f"{self.name}@{machine}"
        update = {"name": name, "workspace": workspace_of(name, name)}
        return self.spec.with_nodes(nodes).model_copy(update=update)


def for_fleet(spec: DataflowSpec) -> DataflowSpec:
    """Return a specification that runs the code of its generation, also where its file lies.

    Its folder on the machines is the same for every operator.
    """
    name = spec.name or ""
    update: dict[str, object] = {"workspace": workspace_of(name, name)}
    if spec.code:
        update["origin"] = spec.origin.model_copy(update={"boot_id": ""})
    return spec.model_copy(update=update)


def with_env(spec: DataflowSpec, env: Mapping[str, str]) -> DataflowSpec:
    """Return a specification whose nodes have these variables, unless they have own values."""
    nodes = []
    for node in spec.resolved.nodes:
        given = {
            key: value
            for key, value in env.items()
            if key not in node.env or key in node.inherited_env
        }
        nodes.append(node.model_copy(update={"env": {**node.env, **given}}) if given else node)
    return spec.with_nodes(tuple(nodes))


class Fleet(Message):
    """Dataflows that a fleet should run."""

    dataflows: tuple[DesiredDataflow, ...] = ()
    rollout: Rollout = Rollout()

    def get(self, name: str) -> DesiredDataflow | None:
        return next((one for one in self.dataflows if one.name == name), None)

    def with_only(self, given: Fleet, names: tuple[str, ...]) -> Fleet:
        """Return the fleet with these dataflows as in ``given``; no names: ``given`` itself."""
        if not names:
            return given
        kept = [one for one in self.dataflows if one.name not in names]
        return Fleet(
            dataflows=(*kept, *(one for one in given.dataflows if one.name in names)),
            rollout=given.rollout,
        )


# -------------------------------------------------------------------------------------- diff

NodeAction = Literal["added", "removed", "replaced", "rewired", "parameters", "started", "stopped"]


class NodeDifference(Message):
    """Change of one node by an apply; all other nodes continue."""

    node: str
    action: NodeAction
    detail: str = ""

    def __str__(self) -> str:
        detail = f" ({self.detail})" if self.detail else ""
        return f"{self.node}: {self.action}{detail}"


class CopyDifference(Message):
    """Change of one dataflow, or of its copy on one machine, by an apply."""

    name: str
    machine: str | None = None
    action: Literal["equal", "start", "stop", "change", "restart", "ended"]
    """``ended``: it has run in this generation and is not started again without an apply."""
    why: str = ""
    nodes: tuple[NodeDifference, ...] = ()
    by_hand: tuple[NodeDifference, ...] = ()
    """Changes by hand since the present generation, which the apply undoes."""
    by_hand_at: str = ""

    def lines(self) -> list[str]:
        """Return the change as lines of text; empty if nothing is to be done."""
        words = {"start": "start", "stop": "stop", "change": "change", "restart": "restart"}
        if self.action not in words:
            return []
        reason = f": {self.why}" if self.why else ""
        found = [f"{words[self.action]} {self.name}{reason}"]
        found += [f"  changed by hand{self.by_hand_at}: {one}" for one in self.by_hand]
        return [*found, *(f"  {one}" for one in self.nodes)]


# ----------------------------------------------------------------------------------- records


class FleetEntry(Message):
    """One generation: action, author, time, changes and outcome."""

    generation: int
    action: Literal["apply", "rollback"] = "apply"
    by: str = ""
    """``USER@HOST``, or the generation whose roll-out failed."""
    at: UnixTime = 0.0
    changes: tuple[str, ...] = ()
    outcome: str = "in progress"


class StoredGeneration(Message):
    """A generation as it is stored."""

    entry: FleetEntry
    fleet: Fleet | None = None
    """None: too old for a rollback."""


class CopyRecord(Message):
    """State of one dataflow or copy that the coordinator stores."""

    reached: int = 0
    """Last generation that ran."""
    healthy: int = 0
    """Last generation that was healthy."""
    failed: str | None = None
    """Reason of the failure in the present generation."""
    by_hand_at: UnixTime | None = None
    """Time at which the copy began to differ from the generation that it has reached."""


class FleetStatus(Message):
    """Stored progress of the present roll-out."""

    generation: int = 0
    paused: str | None = None
    """Why the roll-out is paused."""
    finished: bool = True
    """The present generation was promoted: machines that return follow without waves."""
    force: bool = False
    copies: dict[str, CopyRecord] = Field(default_factory=dict)


def operators_pause(paused: str | None) -> str | None:
    """Return the sentence about a pause by an operator; None: not paused, or by a failure."""
    by_operator = paused is not None and paused.startswith("by ")
    return f"the fleet was paused {paused}" if by_operator else None


# ---------------------------------------------------------------------- requests and answers


class FleetComparison(Message, kind="fleet_comparison"):
    """Answer to :class:`CompareFleet`; `generation` is that to pass to :class:`ApplyFleet`."""

    generation: int
    copies: tuple[CopyDifference, ...] = ()
    differs: bool = False
    """Whether an apply would change running dataflows or the desired state."""
    machines: tuple[str, ...] = ()
    """All machines of the cluster."""


class FleetHistory(Message, kind="fleet_history"):
    """Answer to :class:`GetFleetHistory`, newest last."""

    generations: tuple[FleetEntry, ...] = ()


class CompareFleet(Message, Request[FleetComparison], kind="compare_fleet"):
    """Compare a fleet with what runs."""

    fleet: Fleet
    only: tuple[str, ...] = ()


class ApplyFleet(Message, Request[FleetReport], kind="apply_fleet"):
    """Make a fleet the desired one, before it is carried out.

    Refused if ``generation`` is not the present one.
    """

    fleet: Fleet
    only: tuple[str, ...] = ()
    generation: int
    """The generation with which the fleet was compared."""
    by: str = ""
    force: bool = False
    """Change nodes that hold updates, too."""


class RollBackFleet(Message, Request[FleetReport], kind="roll_back_fleet"):
    """Apply an earlier generation again."""

    to: int | None = None
    """None: the last one that is not the present one."""
    by: str = ""


class PauseFleet(Message, Request[FleetReport], kind="pause_fleet"):
    """Stop changing machines, or continue."""

    paused: bool = True
    by: str = ""


class Checked(Message, kind="checked"):
    """Answer to :class:`CheckMachine`: the command has succeeded."""


class CheckMachine(Message, Request[Checked], kind="check_machine"):
    """Run the command of a roll-out on the coordinator's machine.

    The request fails if the command fails, or is not allowed there.
    """

    command: str
    machine: str = ""
    dataflow: str = ""
    generation: int = 0
    """Generation of the dataflow; 0: an upgrade."""
    version: str = ""
    """Version of dora on the machine; empty: an apply."""
    dry_run: bool = False
    """Do not run it."""


class GetFleetHistory(Message, Query[FleetHistory], kind="get_fleet_history"):
    """Get the generations."""
