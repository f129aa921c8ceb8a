"""Specification of a dataflow, messages about its start, and log filters.

No I/O except in `Origin.of`.
"""

from __future__ import annotations

import json
import re
import zlib
from base64 import b64decode, b64encode
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Final, Literal

from pydantic import Field, field_validator

from dora_config.dataflow.resolved import CurrentNode, NodeLocation, ResolvedDataflow, ResolvedNode
from dora_config.dataflow.sources import LogLevel
from dora_config.ids import parse_node_id
from dora_config.process_identity import boot_id
from dora_config.protocol.dataflow_setup import DataflowSetup
from dora_config.protocol.envelope import FollowedRequest, Message, Request
from dora_config.protocol.recorders import RecordingPlan
from dora_config.protocol.reports import Restarted


class Origin(Message):
    """Folder of the descriptor at the start; a daemon compares it with its own file system."""

    boot_id: str = ""
    """Boot id of the CLI's machine; empty if unknown, which matches no machine."""
    directory: str = ""
    """Absolute folder of the YAML file."""
    device: int = 0
    inode: int = 0
    """Inode of that folder: a container with the same kernel may have another of that name."""

    @classmethod
    def of(cls, folder: Path) -> Origin:
        """Return the identity of a folder of this machine. Raises OSError."""
        found = folder.stat()
        return cls(
            boot_id=boot_id(), directory=str(folder), device=found.st_dev, inode=found.st_ino
        )


def workspace_of(name: str, identity: str) -> str:
    """Return a readable folder name that is the same at each start of the same dataflow."""
    stem = re.sub(r"[^A-Za-z0-9_-]", "_", name)[:100]
    return f"{stem}-{sha256(identity.encode()).hexdigest()[:8]}"


class DataflowSpec(DataflowSetup, Message):
    """Complete description of a dataflow, from which it can be started again."""

    name: str | None = Field(default=None, min_length=1, max_length=256)
    origin: Origin = Origin()
    workspace: str = Field(default="", pattern=r"^([A-Za-z0-9_-][A-Za-z0-9_.-]{0,127})?$")
    """Folder below ``_work`` of daemons that cannot access the origin; the same at each start."""
    places: dict[str, NodeLocation] = Field(default_factory=dict)
    """Results of the last local build by node id; valid only where the origin is accessible."""
    built_on: dict[str, str] = Field(default_factory=dict)
    """Daemon that built each node in ``build_id``, for nodes that had something to prepare."""
    code: dict[str, str] = Field(default_factory=dict)
    """Digest of the ``CodeSet`` by node id, for nodes whose code is sent to their machine.

    In the order in which it was sent: where two nodes share a folder, later files count.
    """
    delivered_by: str | None = None
    """Id of the build in which that code was delivered."""
    allow_unlinked: bool = False
    """Start although machines with shared edges cannot reach each other."""
    offline: Literal["run", "wait"] = "run"
    """Whether a machine that boots without the coordinator starts its nodes alone, or waits."""
    generation: int = 0
    """Generation of the fleet file that last changed it; 0: started by hand."""
    recording: RecordingPlan | None = None
    """Record from the first message on; a restart of the dataflow is not recorded."""

    @field_validator("name")
    @classmethod
    def _printable(cls, value: str | None) -> str | None:
        if value is not None and not value.isprintable():
            raise ValueError("a dataflow's name must not contain control characters")
        return value

    @field_validator("resolved")
    @classmethod
    def _node_ids(cls, value: ResolvedDataflow) -> ResolvedDataflow:
        for node in value.nodes:
            parse_node_id(node.id)  # used in file names on daemons
        return value

    def with_nodes(self, nodes: tuple[ResolvedNode, ...]) -> DataflowSpec:
        """Return the specification for a daemon that runs only ``nodes``."""
        resolved = self.resolved.model_copy(update={"nodes": nodes})
        return self.model_copy(update={"resolved": resolved})

    def with_sent(self, sent: DataflowSpec) -> DataflowSpec:
        """Return the specification after nodes were replaced or added, with their code."""
        nodes = {node.id: node for node in (*self.resolved.nodes, *sent.resolved.nodes)}
        update = {"code": updated(self.code, sent.code)}
        return self.with_nodes(tuple(nodes.values())).model_copy(update=update)

    def with_current(self, current: tuple[CurrentNode, ...]) -> DataflowSpec:
        """Return the specification for nodes that were changed while they ran."""
        resolved = self.resolved.model_copy(update={"nodes": tuple(one.node for one in current)})
        ids = {one.node.id for one in current}
        places = {node: place for node, place in self.places.items() if node in ids}
        places |= {one.node.id: one.place for one in current if one.place != NodeLocation()}
        changed = {
            one.node.id: one.code
            for one in current
            if one.code and one.code != self.code.get(one.node.id)
        }
        kept = {node: digest for node, digest in self.code.items() if node in ids}
        code = updated(kept, changed)
        update = {"resolved": resolved, "places": places, "code": code}
        return self.model_copy(update=update)


class StartIdentity(Message):
    """Identity of one start of a dataflow; starts are comparable without the store.

    A coordinator makes its starts later than all that it has seen, whatever its clock shows.
    """

    time: float = 0.0
    """Unix time of the start."""
    epoch: int = 0
    """Epoch of the coordinator that made it."""
    number: int = 0
    """Position in the order of starts of that coordinator."""
    signature: str = ""
    """Signature of `text` by the cluster's authority (base64); machines cannot make one."""

    def text(self, dataflow_id: str, name: str | None) -> bytes:
        """Return the bytes that are signed; ``name``: name of the dataflow."""
        facts = [dataflow_id, name, self.time, self.epoch, self.number]
        return b"dora start\n" + json.dumps(facts).encode()

    def order(self, dataflow_id: str) -> tuple[float, int, int, str]:
        """Return the key by which the later one of two starts sorts last."""
        return self.time, self.epoch, self.number, dataflow_id


UNPROVEN: Final = -(1 << 40)
"""Number of changes of a description without a signature: each signed one is newer."""


class WholeDataflow(Message):
    """Description of all parts that each machine keeps for a coordinator without its store.

    Each machine is the source of its own nodes; those of the others may be older here.
    """

    begun: StartIdentity = StartIdentity()
    changes: int = 0
    """Number of changes of nodes, edges and parts of the dataflow since its start."""
    placement: dict[str, str] = Field(default_factory=dict)
    """Key of its daemon by node id, of all nodes in the order of the file; empty: not known."""
    packed: str = ""
    """The specification of all nodes, as `pack` returns it; it is the same for each machine."""
    signature: str = ""
    """Signature of `text` by the cluster's authority (base64): a machine cannot change the nodes of
    others.
    """

    def text(self, dataflow_id: str) -> bytes:
        """Return the bytes that are signed; fields with defaults may be added by later versions."""
        facts = self.model_copy(update={"begun": StartIdentity(), "signature": dataflow_id})
        content = facts.model_dump_json(exclude_defaults=True).encode()
        return b"dora dataflow\n" + sha256(content).hexdigest().encode()

    def unpack(self) -> DataflowSpec | None:
        """Return the specification of all nodes; only for a verified signature."""
        if not self.packed:
            return None
        return DataflowSpec.model_validate_json(zlib.decompress(b64decode(self.packed)))


def pack(spec: DataflowSpec) -> str:
    """Return a specification as JSON, compressed (RFC 1950), in base64."""
    return b64encode(zlib.compress(spec.model_dump_json().encode())).decode()


def updated(code: Mapping[str, str], changed: Mapping[str, str]) -> dict[str, str]:
    """Return digests by node id with those that changed at the end."""
    return {node: code[node] for node in code if node not in changed} | dict(changed)


class StartTriggered(Message, kind="start_triggered"):
    uuid: str
    waits_for: str | None = None
    """Condition that the start waits for; sent again when it changes."""


class Placed(Message):
    """Placement of one node, with the reason."""

    node: str
    daemon: str
    reason: str


class PlacementPlan(Message, kind="placement"):
    nodes: tuple[Placed, ...]


class Started(Message, kind="started"):
    uuid: str
    warnings: tuple[str, ...] = ()


class StartDataflow(Message, FollowedRequest[Started, StartTriggered], kind="start"):
    """Place, prepare and release a dataflow."""

    spec: DataflowSpec


class ReplaceDataflow(Message, Request[Restarted], kind="replace"):
    """Stop a dataflow and start another specification of it.

    If that fails, what ran is started again.
    """

    dataflow: str | None = None
    spec: DataflowSpec


class PlanDataflow(Message, Request[PlacementPlan], kind="plan"):
    """Place a dataflow without starting it; refused if its start would be."""

    spec: DataflowSpec


class LogFilter(Message):
    """Selects lines of log files by time, level, text and tail, applied in this order."""

    since: float | None = None
    """Unix time in seconds."""
    until: float | None = None
    level: LogLevel = "stdout"
    per_node: dict[str, LogLevel] = Field(default_factory=dict)
    """Levels by node; override ``level``."""
    grep: str | None = None
    """Text that the message contains; upper and lower case are equal."""
    tail: int | None = None


LogPosition = tuple[int, int]
"""End of a line that was read: checksum of the first line of its file, and offset in the file.

Rotations rename files, which changes neither.
"""


class LogSelection(Message):
    """Selection of log lines."""

    nodes: tuple[str, ...] = ()
    """Empty: all nodes."""
    filter: LogFilter = LogFilter()
    follow: bool = False
    after: dict[str, LogPosition] = Field(default_factory=dict)
    """Read only what follows these positions, by node."""
