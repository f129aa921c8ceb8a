"""Data of one dataflow that the handlers of its phases share; pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from dora_config.protocol.calls import PartLinks
from dora_config.protocol.control import FailureCode
from dora_config.protocol.dataflow import DataflowSpec, WholeDataflow, pack
from dora_config.protocol.links import PeerEndpoint, RemoteEdge
from dora_config.protocol.runner import DataflowResult
from dora_config.retry import Retry
from dora_coordinator.dataflow.completion import CompletionRule, rolled_back
from dora_coordinator.dataflow.part import Part
from dora_coordinator.links.edges import remote_edges
from dora_coordinator.links.links import Links
from dora_coordinator.settings import Settings
from dora_coordinator.state.commands import CancelTimer, Command, RequestRefused, SendToDaemon
from dora_coordinator.state.events import DataflowTimer, TimerKey
from dora_coordinator.state.membership import Membership
from dora_coordinator.state.records import DataflowRecord, PartState, Phase


class Parts(Mapping[str, Part]):
    """Parts by daemon; their states change through :meth:`move` and :meth:`end` only."""

    def __init__(
        self, record: DataflowRecord, spec: DataflowSpec, earlier: Links | None = None
    ) -> None:
        self._by_daemon = {
            part.daemon: Part(record.dataflow_id, **dict(part)) for part in record.parts
        }
        self._count = Counter(part.state for part in self._by_daemon.values())
        """Number of parts by state, so that events need not visit all parts."""
        self._changed: set[str] = set()
        self.links = self._set_spec(spec, earlier)

    def _set_spec(self, spec: DataflowSpec, earlier: Links | None) -> Links:
        self._nodes = {node.id: node for node in spec.resolved.nodes}
        links = Links(remote_edges(spec.resolved, self.by_node()), earlier)
        for part in self._by_daemon.values():
            if part.ended:
                links.part_ended(part.daemon)
        return links

    def __getitem__(self, daemon: str) -> Part:
        return self._by_daemon[daemon]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_daemon)

    def __len__(self) -> int:
        return len(self._by_daemon)

    # --------------------------------------------------------------------- changes

    def move(self, part: Part, state: PartState) -> None:
        self._count[part.state] -= 1
        self._count[state] += 1
        part.state = state

    def end(self, part: Part, result: DataflowResult | None) -> None:
        """Mark a part as ended permanently; an earlier result stays."""
        if part.ended and part.result is not None:
            return
        self.mark(part)
        self.move(part, PartState.ENDED)
        part.result = result
        self.links.part_ended(part.daemon)

    def rewire(self, spec: DataflowSpec, nodes: Mapping[str, tuple[str, ...]]) -> list[Part]:
        """Set the nodes of some parts; return the parts whose links differ afterwards."""
        before = {daemon: self.links.edges_of(daemon) for daemon in self}
        for daemon, ids in nodes.items():
            self[daemon].nodes = ids
        self.links = self._set_spec(spec, self.links)
        return [
            part
            for part in self.values()
            if not part.ended and self.links.edges_of(part.daemon) != before[part.daemon]
        ]

    def add(self, part: Part) -> None:
        """Add a part to a running dataflow; `rewire` sets its nodes."""
        self._by_daemon[part.daemon] = part
        self._count[part.state] += 1

    def remove(self, part: Part) -> None:
        """Remove a part without running nodes; `rewire` updates the links."""
        del self._by_daemon[part.daemon]
        self._count[part.state] -= 1
        self._changed.discard(part.daemon)

    def mark(self, part: Part) -> None:
        """Mark a part to be stored."""
        self._changed.add(part.daemon)

    def unmark(self) -> None:
        """Remove all marks, after the marked parts were stored."""
        self._changed.clear()

    # ----------------------------------------------------------------------- views

    def by_node(self) -> dict[str, str]:
        """Return the daemon of each node."""
        return {node: part.daemon for part in self.values() for node in part.nodes}

    def marked(self) -> list[Part]:
        return [self[daemon] for daemon in sorted(self._changed)]

    def left(self) -> list[Part]:
        """Return the parts that have not ended."""
        return [part for part in self.values() if not part.ended]

    @property
    def all_prepared(self) -> bool:
        return self._count[PartState.PREPARED] == len(self)

    @property
    def all_ended(self) -> bool:
        return self._count[PartState.ENDED] == len(self)

    @property
    def all_settled(self) -> bool:
        """Whether every part runs or has ended."""
        return self._count[PartState.RUNNING] + self._count[PartState.ENDED] == len(self)

    # -------------------------------------------------------------------- messages

    def prepare(
        self, part: Part, spec: DataflowSpec, whole: WholeDataflow, membership: Membership
    ) -> SendToDaemon:
        """Return the message to spawn a part; ``spec``: specification of the whole dataflow."""
        own = spec.with_nodes(tuple(self._nodes[node] for node in part.nodes))
        return part.prepare(own, self.links_of(part, membership), whole)

    def links_of(
        self, part: Part, membership: Membership, edges: tuple[RemoteEdge, ...] | None = None
    ) -> PartLinks:
        """Return the links of a part, or those that other ``edges`` would give it."""
        edges = self.links.edges_of(part.daemon) if edges is None else edges
        addresses, names = {}, {}
        for peer in sorted({edge.peer_of(part.daemon) for edge in edges}):
            member = membership.get(peer)
            if member is not None:
                addresses[peer] = member.address.rpartition(":")[0].strip("[]")
                names[peer] = member.certificate_name
        return PartLinks(edges=edges, addresses=addresses, names=names, whole=len(self) == 1)

    def relink(self, part: Part, whole: WholeDataflow, membership: Membership) -> list[Command]:
        """Return the messages with the links of a running part and the addresses of its peers.

        A part whose link starts only now gets the addresses when it listens.
        """
        links: list[Command] = [part.link(self.links_of(part, membership), whole)]
        if self.links.report_of(part.daemon) is not None:
            links.append(self.connect(part, membership))
        return links

    def connect(self, part: Part, membership: Membership) -> SendToDaemon:
        """Return the message with the addresses of a part's peers."""
        found = self.links.endpoints_for(part.daemon)
        endpoints = tuple(_with_name(endpoint, membership) for endpoint in found)
        return part.connect(endpoints, self.links.ended_peers_of(part.daemon))

    def send_endpoint_to_peers(self, part: Part, membership: Membership) -> list[Command]:
        """Return messages with the part's address to its peers."""
        endpoint = self.links.endpoint(part.daemon)
        if endpoint is None:
            return []
        endpoints = (_with_name(endpoint, membership),)
        return [peer.connect(endpoints) for peer in self._peers(part)]

    def send_end_to_peers(self, part: Part) -> list[Command]:
        """Return messages to the part's peers that it has ended."""
        return [peer.connect(ended=(part.daemon,)) for peer in self._peers(part)]

    def _peers(self, part: Part) -> list[Part]:
        peers = (self[peer] for peer in self.links.peers_of(part.daemon))
        return [peer for peer in peers if not peer.ended]


def _with_name(endpoint: PeerEndpoint, membership: Membership) -> PeerEndpoint:
    member = membership.get(endpoint.machine)
    name = "" if member is None else member.certificate_name
    return endpoint.model_copy(update={"name": name})


@dataclass(frozen=True, slots=True)
class DataflowContext:
    """State and settings that all dataflows share."""

    membership: Membership
    settings: Settings
    wall_offset: float = 0.0
    """Unix time minus the coordinator's clock."""


class NotRestarted(RequestRefused):
    """A dataflow was stopped and cannot be started again now, because of ``cause``."""

    def __init__(self, code: FailureCode, label: str, cause: str, remedy: str) -> None:
        super().__init__(code, f"{label} was stopped but not started again: {cause}{remedy}")
        self.cause = cause.replace("\n", "; ")


class DataflowData:
    def __init__(
        self,
        record: DataflowRecord,
        spec: DataflowSpec,
        context: DataflowContext,
        earlier: DataflowData | None = None,
    ) -> None:
        """``earlier``: the same dataflow before further parts of it were adopted; its link reports
        and the times of its recovery attempts are kept.
        """
        self.context = context
        self.id = record.dataflow_id
        self.name = record.name
        self.number = record.number
        """Position in the order of starts."""
        self.spec = spec
        self._whole: tuple[DataflowSpec, WholeDataflow] | None = None
        """Description for machines to keep, and the specification that it was made from."""
        self.parts = Parts(record, spec, None if earlier is None else earlier.links)
        for part in () if earlier is None else earlier.parts.values():
            if part.daemon in self.parts:
                self.parts[part.daemon].retry = part.retry
        self.completion = CompletionRule(
            spec.resolved.nodes, when_nodes_finish=spec.exit_when_nodes_finish
        )
        self.loading = ""
        """Description of the nodes that delay a long start."""
        self.linking_since = 0.0
        """Time at which all parts were prepared and had the addresses of their peers."""
        self.missing_links: str | None = None
        """Links that the start waits for, once the first check found some."""
        self.phase = record.phase
        self.reason = record.reason
        """Why the dataflow failed as a whole."""
        self.stopped_since = record.stopped_since
        """Why it was stopped, unless a user requested it."""
        self.unreported = record.unreported
        """Failed only because no daemon reported it in time; it resumes when one does."""
        self.ended_at = record.ended_at
        """Unix time of its end."""
        self.grace = record.grace
        self.force = record.force
        self.stop_requested = record.stop_requested
        """Whether the stop was requested: parts that are found later are stopped too."""
        self.replaces = record.replaces
        self.start_retry = Retry()
        """Time of the next start after a restart that has failed."""
        self.begun = record.begun
        self.changes = record.changes
        self.restart_as = record.restart_as
        self.restart_spec = record.restart_spec
        """Id of the dataflow that is started once this one has ended."""
        self.not_added: dict[str, str] = {}
        """Why the nodes that were to run on a further daemon were not added, by daemon."""
        self.not_restarted: NotRestarted | None = None
        """Why the dataflow has not been started again yet although that was requested."""
        self.released = False
        """Whether nodes were released since this coordinator started."""
        self.warnings: tuple[str, ...] = ()
        """Problems that did not prevent the start."""

    @property
    def label(self) -> str:
        return f'"{self.name}" ({self.id})' if self.name else self.id

    @property
    def settings(self) -> Settings:
        return self.context.settings

    @property
    def links(self) -> Links:
        return self.parts.links

    @property
    def has_ended(self) -> bool:
        return self.phase.has_ended

    @property
    def waits_to_restart(self) -> bool:
        """Whether it has ended and is to be started again as soon as that is possible."""
        return self.has_ended and self.restart_as is not None

    def timer(self, purpose: DataflowTimer) -> TimerKey:
        return TimerKey(purpose, self.id)

    def cancel_timers(self, *purposes: DataflowTimer) -> list[Command]:
        return [CancelTimer(self.timer(purpose)) for purpose in purposes]

    def is_connected(self, part: Part) -> bool:
        return self.context.membership.is_connected(part.daemon)

    def prepare(self, part: Part) -> SendToDaemon:
        """Return the command to spawn the nodes of a part."""
        return self.parts.prepare(part, self.spec, self.whole(), self.context.membership)

    def relink(self, part: Part) -> list[Command]:
        """Return the messages with a part's links and the description of the other parts."""
        return self.parts.relink(part, self.whole(), self.context.membership)

    def whole(self) -> WholeDataflow:
        """Return the description of all parts that each machine keeps.

        Parameters and stopped nodes are left out: their own machine reports them.
        """
        nodes, places = self.spec.resolved.nodes, self.parts.by_node()
        placement = {node.id: places[node.id] for node in nodes if node.id in places}
        known = self._whole
        if known is None or known[0] is not self.spec or known[1].placement != placement:
            update: dict[str, object] = {
                "descriptor": {},
                "params": {},
                "stopped": (),
                "recording": None,
            }
            packed = pack(self.spec.model_copy(update=update))
            known = self.spec, WholeDataflow(placement=placement, packed=packed)
        now = {"begun": self.begun, "changes": self.changes}
        self._whole = known[0], known[1].model_copy(update=now)
        return self._whole[1]

    def connect_all(self) -> list[Command]:
        """Return the messages with the addresses of all links to all of them."""
        linked = (self.parts[machine] for machine in self.links.machines)
        return [self.parts.connect(part, self.context.membership) for part in linked]

    def end_part(self, part: Part, result: DataflowResult | None) -> None:
        if result is not None and self.phase is Phase.ROLLING_BACK:
            result = rolled_back(result)
        self.parts.end(part, result)

    def note_end(self, now: float) -> None:
        """Record the time of the end; clear it if the dataflow has not ended."""
        self.ended_at = now + self.context.wall_offset if self.has_ended else None

    def record(self) -> DataflowRecord:
        """Return the record with all parts."""
        return self._record(self.parts.values())

    def changed_record(self) -> DataflowRecord:
        """Return the record with the changed parts only: writes stay small in a large fleet."""
        return self._record(self.parts.marked())

    def _record(self, parts: Iterable[Part]) -> DataflowRecord:
        own = DataflowRecord.model_fields.keys() - {"dataflow_id", "parts"}
        return DataflowRecord(
            dataflow_id=self.id,
            parts=tuple(part.record() for part in parts),
            **{field: getattr(self, field) for field in own},
        )
