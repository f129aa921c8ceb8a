"""Several runners on this computer that act as machines of a cluster.

The runners, the links and the sessions between them are real, with certificates. This module does
the work of the coordinator: it creates the certificates, sends each part the endpoints of the
others, and releases all parts once every pair of links is connected.
"""

from __future__ import annotations

import base64
import os
import signal
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.runner.runs import BackgroundRun, background_plan, gone, is_running
from support.waiting import PATIENCE, wait_until
from support.workspace import Workspace

from dora_config.dataflow.loader import LoadedDataflow, load_dataflow
from dora_config.machine_identity import certificate_name, key_digest
from dora_config.protocol import runner as protocol
from dora_config.protocol.links import LinkPlan, LinkReport, PeerEndpoint, SetLinkPeers
from dora_config.protocol.runner import RunPlan
from dora_coordinator.io.authority import Authority
from dora_coordinator.links.edges import remote_edges
from dora_daemon.agent.credentials import Credentials

PORTS = 20
"""Ports in the range of a part."""


def own_ports(number: int) -> int:
    """Return the first port of a part's range; parallel tests have other ranges."""
    return 20_000 + (os.getpid() * 97 % 350) * 100 + number * PORTS


@dataclass
class Part:
    """The part of one machine."""

    machine: str
    plan: RunPlan
    run: BackgroundRun
    name: str
    """Common name in its certificate."""

    def report(self) -> LinkReport:
        link = self.run.status().state.link
        assert link is not None
        return link

    def endpoint(self) -> PeerEndpoint:
        report = self.report()
        return PeerEndpoint(
            machine=self.machine,
            run_id=report.run_id,
            endpoints=report.endpoints,
            name=self.name,
        )

    def link_pid(self) -> int:
        """Return the pid of the link process."""
        found = wait_until(
            lambda: children(self.run.pid(), "dora_daemon.link"),
            what=f"a link process of {self.machine}",
        )
        return found[0]

    def node_pid(self, node: str) -> int:
        status = self.run.wait_for_state(node, "Running")
        assert status.pid is not None
        return status.pid

    def edges(self) -> dict[str, protocol.EdgeStatus]:
        """Return the edges by ``source -> target``."""
        reply = self.run.request(protocol.GetStatistics())
        assert isinstance(reply, protocol.Statistics), reply
        return {f"{edge.source} -> {edge.target}": edge for edge in reply.edges}

    def state(self) -> str:
        """Return everything that may explain a timeout."""
        edges = "\n".join(map(str, self.edges().values()))
        return f"{self.run.log()}\n{self.run.status()}\n{edges}"

    def result(self, timeout: float = PATIENCE) -> protocol.DataflowResult:
        """Return the result and acknowledge it."""

        def ended() -> protocol.DataflowResult | None:
            return self.run.status().state.result

        result = wait_until(ended, timeout=timeout, what=self.state)
        assert result is not None
        assert self.run.request(protocol.AcknowledgeResult()) == protocol.Done()
        # if killed before it has removed its directory, it would leave that to the next start
        gone(self.run.pid())
        return result


def children(parent: int, word: str) -> list[int]:
    """Return the children of a process with a word in their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            line = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if int(fields[1]) == parent and fields[0] != "Z" and word.encode() in line:
            found.append(int(entry.name))
    return found


@dataclass
class Linked:
    """All parts of one dataflow."""

    workspace: Workspace
    loaded: LoadedDataflow
    placement: Mapping[str, str]
    stack: ExitStack
    options: Mapping[str, Any]
    link: Mapping[str, Any]
    authority: Authority
    dataflow_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    parts: dict[str, Part] = field(default_factory=dict)
    lives: int = 0

    @property
    def machines(self) -> list[str]:
        return list(dict.fromkeys(self.placement.values()))

    def links(self, machine: str) -> LinkPlan | None:
        edges = remote_edges(self.loaded.resolved, self.placement).get(machine, ())
        if not edges:
            return None
        self.lives += 1
        first = own_ports(self.machines.index(machine))
        listen = {"listen_host": "127.0.0.1", "first_port": first, "last_port": first + PORTS - 1}
        return LinkPlan(
            machine=machine,
            run_id=f"{machine}-{self.lives}",
            edges=edges,
            names={name: self.name(name) for name in self.machines if name != machine},
            **{**listen, **self.link},
        )

    def _credentials(self, machine: str) -> tuple[Credentials, str]:
        """Return the credentials of a machine and the digest of its key."""
        folder = self.workspace.path / "credentials" / machine
        folder.parent.mkdir(exist_ok=True)
        credentials = Credentials(folder)
        return credentials, key_digest(base64.b64decode(credentials.public_key))

    def name(self, machine: str) -> str:
        """Return the common name in a machine's certificate."""
        return certificate_name(machine, self._credentials(machine)[1])

    def credentials(self, machine: str) -> str:
        credentials, digest = self._credentials(machine)
        signed = self.authority.sign(credentials.request(), machine, digest)
        credentials.store(signed, self.authority.pem)
        return str(self.workspace.path / "credentials" / machine)

    def start(self, machine: str) -> Part:
        """Start the part of a machine, held at the barrier; also again after its end."""
        nodes = tuple(n for n in self.loaded.resolved.nodes if self.placement[n.id] == machine)
        plan = RunPlan(
            dataflow_id=self.dataflow_id,
            resolved=self.loaded.resolved.model_copy(update={"nodes": nodes}),
            descriptor=self.loaded.descriptor_dict,
            working_dir=str(self.workspace.path),
            hold_at_barrier=True,
            machine_id=machine,
            links=self.links(machine),
            credentials=self.credentials(machine),
            **self.options,
        )
        run = self.stack.enter_context(background_plan(self.workspace, plan))
        self.parts[machine] = Part(machine, plan, run, self.name(machine))
        return self.parts[machine]

    def connect(self) -> None:
        """Send the endpoints of the others to each part, once they listen."""
        linked = [p for p in self.parts.values() if p.plan.links is not None]
        for part in linked:
            wait_until(
                lambda part=part: part.report().endpoints,  # type: ignore[misc]
                what=lambda part=part: f"an endpoint: {part.report()} {part.run.log()}",  # type: ignore[misc]
            )
        endpoints = [part.endpoint() for part in linked]
        for part in linked:
            others = tuple(e for e in endpoints if e.machine != part.machine)
            reply = part.run.request(SetLinkPeers(peers=others))
            assert reply == protocol.Done(), reply

    def wait_until_connected(self, timeout: float = PATIENCE) -> None:
        for part in self.parts.values():
            if part.plan.links is None:
                continue

            def connected(part: Part = part) -> bool:
                peers = {peer.machine: peer.state for peer in part.report().peers}
                return all(peers.get(m) == "connected" for m in part.plan.links.peers)  # type: ignore[union-attr]

            wait_until(
                connected,
                timeout=timeout,
                what=lambda part=part: f"proof: {part.report()} {part.run.log()}",  # type: ignore[misc]
            )

    def release(self) -> None:
        for part in self.parts.values():
            part.run.wait_for_phase("ready")
        for part in self.parts.values():
            assert part.run.request(protocol.Release()) == protocol.Done()

    def __getitem__(self, machine: str) -> Part:
        return self.parts[machine]

    def kill_runner(self, machine: str) -> None:
        """SIGKILL the runner and wait until its reaper has cleaned up."""
        run = self.parts[machine].run
        os.kill(run.pid(), signal.SIGKILL)
        wait_until(lambda: not is_running(run.pid()), what="the end of the runner")
        wait_until(lambda: not run.path.exists(), what="the reaper to finish")


@contextmanager
def linked(
    workspace: Workspace,
    content: str | Mapping[str, Any],
    placement: Mapping[str, str],
    *,
    release: bool = True,
    link: Mapping[str, Any] | None = None,
    **options: Any,
) -> Iterator[Linked]:
    """Start all parts and release them; ``placement``: the machine of each node.

    ``link`` has fields of the LinkPlan, ``options`` those of the RunPlan.
    """
    path = workspace.dataflow(content)
    authority = Authority(workspace.path / "authority")
    with ExitStack() as stack:
        flow = Linked(
            workspace, load_dataflow(path), placement, stack, options, link or {}, authority
        )
        for machine in flow.machines:
            flow.start(machine)
        if release:
            flow.connect()
            flow.wait_until_connected()
            flow.release()
        yield flow
