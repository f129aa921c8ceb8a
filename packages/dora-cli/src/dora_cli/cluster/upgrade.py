"""`dora cluster upgrade` and `rollback`: one machine after the other, dataflows go on.

On each machine the new version is put beside the old one and tested there; then the link is
switched and the daemon restarted as a hand-over, which its runners outlive. A daemon that does not
come back, or comes back without its dataflows, is returned to the version before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from dora_cli import output
from dora_cli.bundle.install import Installer
from dora_cli.bundle.layout import SYSTEM, USER, Layout
from dora_cli.bundle.machine import ask
from dora_cli.client import Client, ConnectionLost, CoordinatorUnreachable
from dora_cli.cluster import coordinator_here
from dora_cli.cluster.command_line import daemon_arguments, ssh_name
from dora_cli.cluster.coordinator_upgrade import upgrade_coordinator
from dora_cli.cluster.machines import OnMachine, target_of, without_name
from dora_cli.cluster.preflight import Facts, NotReady
from dora_cli.cluster.service import Systemd
from dora_cli.ssh import connect
from dora_config import DoraError
from dora_config.cluster import Cluster, Machine
from dora_config.protocol.control import ListNodes, NodeList, NodeSummary

RECONNECT_TIMEOUT = 30.0
POLL_INTERVAL = 0.5
HAND_OVER_TIMEOUT = 20.0
LAST_LINES = 8


@dataclass(frozen=True, slots=True)
class Switched:
    """What was switched to; ``unit``: of the service from now on, ``None`` as it is."""

    dora: str
    version: str
    unit: bytes | None = None


@dataclass(frozen=True, slots=True)
class Old:
    """What a machine is returned to."""

    release: str
    """Of the daemon that is connected; empty when none is."""
    trees: Mapping[str, str]
    """Names of the trees that ``current`` and ``previous`` lead to, empty for none."""
    unit: bytes | None
    """Of the service, if there is one."""

    @property
    def name(self) -> str:
        return self.release or "the version before"


Switch = Callable[[OnMachine, Layout, Systemd | None], Switched | None]
"""Has a machine call another version; ``None``: it runs that already."""


class _Step:
    """Lines as ``  Restart service... OK``."""

    def __init__(self, words: str) -> None:
        self._words = words
        self._begun = time.monotonic()

    def ok(self, detail: str = "") -> None:
        output.write(f"  {self._words}... OK" + (f" ({detail})" if detail else ""))

    def seconds(self) -> str:
        return f"{time.monotonic() - self._begun:.1f}s"

    def failed(self) -> None:
        output.write(f"  {self._words}... FAILED")


def upgrade(
    cluster: Cluster, installer: Installer, machines: Sequence[Machine], *, keep_going: bool
) -> bool:
    """Have this version on the coordinator and on the machines; whether all of it went well.

    Raises DoraError when nothing can be upgraded at all.
    """
    version = installer.version
    _require_coordinator(cluster)
    before = _all_nodes(cluster)
    if upgrade_coordinator(cluster, version):
        _wait_for_everybody(before, cluster, keep_going=keep_going)

    def switch(on: OnMachine, layout: Layout, systemd: Systemd | None) -> Switched | None:
        if on.machine.dora is not None:
            raise NotReady(
                f"the cluster file names its program, {on.machine.dora}: upgrade that by the means "
                "by which it came there, or take `dora` out of the file"
            )
        step = _Step(f"Put dora {version} there and test it")
        try:
            tree, facts = installer.put(on.link, layout, lambda text: None)
        except DoraError:
            step.failed()
            raise
        step.ok(step.seconds())
        current = facts["current"]
        if current is not None and tree.endswith(f"/{current['name']}") and _runs(on, version):
            return None
        done = installer.switch(on.link, layout, tree, facts)
        unit = systemd.rendered(done.dora) if systemd is not None else None
        return Switched(done.dora, version, unit)

    return _one_by_one(cluster, installer, machines, "Upgrading", switch, keep_going=keep_going)


def rollback(
    cluster: Cluster, installer: Installer, machines: Sequence[Machine], *, keep_going: bool
) -> bool:
    """Have the version before on the machines; whether all of it went well."""
    _require_coordinator(cluster)

    def switch(on: OnMachine, layout: Layout, systemd: Systemd | None) -> Switched:
        facts = ask(on.link, "probe", prefix=layout.prefix)
        previous = facts["previous"]
        if previous is None:
            raise NotReady(f"there is no earlier version in {facts['prefix']} to return to")
        link = layout.link.replace("~", str(facts["home"]), 1)
        kept = f"{facts['prefix']}/{previous['name']}/{on.service}.service"
        unit = on.link.read(kept, sudo=layout.sudo) if systemd is not None else None
        ask(on.link, "rollback", prefix=layout.prefix, link=link, sudo=layout.sudo)
        return Switched(link, str(previous["version"]), unit)

    return _one_by_one(cluster, installer, machines, "Rolling back", switch, keep_going=keep_going)


def _require_coordinator(cluster: Cluster) -> None:
    if coordinator_here.report(cluster) is None:
        raise NotReady(
            f"no coordinator answers at {coordinator_here.where(cluster)}, so nobody could say "
            "whether the daemons come back: start it with `dora cluster up`"
        )


def _one_by_one(
    cluster: Cluster,
    installer: Installer,
    machines: Sequence[Machine],
    label: str,
    switch: Switch,
    *,
    keep_going: bool,
) -> bool:
    succeeded = 0
    for number, machine in enumerate(machines, 1):
        output.write(f"{label} {ssh_name(machine)}...")
        try:
            with connect(target_of(machine)) as link:
                _one(OnMachine(cluster, machine, link), installer, switch)
            succeeded += 1
        except (DoraError, OSError) as error:
            output.write(f"  FAILED: {without_name(str(error), ssh_name(machine))}")
            left = [other.id for other in machines[number:]]
            if left and not keep_going:
                output.write(
                    f"Stopped there; not touched: {', '.join(left)} (--keep-going goes on)"
                )
                break
    output.write(f"{succeeded}/{len(machines)} succeeded.")
    return succeeded == len(machines)


def _one(on: OnMachine, installer: Installer, switch: Switch) -> None:
    """One machine, all or nothing."""
    facts = on.facts()
    systemd = Systemd.found(on, facts)
    if systemd is None and facts.daemon is None:
        raise NotReady(
            "no daemon is installed or runs there: use `dora cluster install` or `cluster up`"
        )
    layout = USER if systemd is None or systemd.user else SYSTEM
    nodes = _nodes(on)
    old = Old(_release(on), _trees(on, layout), systemd.text() if systemd is not None else None)
    try:
        switched = switch(on, layout, systemd)
    except BaseException:
        with suppress(DoraError, OSError):  # it may be the connection that failed
            if _trees(on, layout) != old.trees:
                _restore_links(on, layout, old)
        raise
    if switched is None:
        output.write("  It runs that version already")
        return
    try:
        if systemd is not None and old.unit is not None:
            _keep_unit(on, layout, old.trees, old.unit)
            systemd.put(switched.unit or old.unit)
        _restart(on, facts, systemd, switched.dora)
        _wait_for_reconnect(on, systemd, switched.version)
        _require_nodes(on, nodes)
    except (DoraError, OSError) as problem:
        _take_back(on, facts, systemd, layout, switched, old, str(problem))
        raise NotReady(f"{problem}\n  (it runs {old.name} again)") from problem
    except BaseException:  # Ctrl-C
        output.write(f"  Interrupted: returning to {old.name}; a second Ctrl-C leaves it as it is")
        _take_back(on, facts, systemd, layout, switched, old, "interrupted")
        raise
    installer.collect(on.link, layout)


def _trees(on: OnMachine, layout: Layout) -> dict[str, str]:
    """Names of the current and the previous version there, empty for none."""
    found = ask(on.link, "probe", prefix=layout.prefix)
    return {link: found[link]["name"] if found[link] else "" for link in ("current", "previous")}


def _keep_unit(on: OnMachine, layout: Layout, trees: Mapping[str, str], unit: bytes) -> None:
    """Beside the version that it was written for, which a rollback returns to."""
    if name := trees["current"]:
        prefix = ask(on.link, "probe", prefix=layout.prefix)["prefix"]
        on.link.write(f"{prefix}/{name}/{on.service}.service", unit, sudo=layout.sudo)


def _restore_links(on: OnMachine, layout: Layout, old: Old) -> None:
    current, previous = old.trees["current"], old.trees["previous"]
    ask(
        on.link,
        "restore",
        prefix=layout.prefix,
        current=current,
        previous=previous,
        sudo=layout.sudo,
    )


def _take_back(
    on: OnMachine,
    facts: Facts,
    systemd: Systemd | None,
    layout: Layout,
    switched: Switched,
    old: Old,
    problem: str,
) -> None:
    """Have everything as it was; NotReady with ``problem`` when that does not work either."""
    step = _Step(f"Return to {old.name}")
    try:
        if systemd is not None and old.unit is not None:
            systemd.put(old.unit)
        _restore_links(on, layout, old)
        _restart(on, facts, systemd, switched.dora, quiet=True)
        if old.release:
            _poll(lambda: _runs(on, old.release), f"dora {old.release} did not connect either")
    except (DoraError, OSError) as second:
        step.failed()
        raise NotReady(f"{problem}\n  and it could not be returned: {second}") from second
    step.ok()


# ---------------------------------------------------------------------------------- one step each


def _restart(
    on: OnMachine, facts: Facts, systemd: Systemd | None, dora: str, *, quiet: bool = False
) -> None:
    """A new daemon process; whatever the old one ran goes on."""
    step = _Step("Restart service" if systemd is not None else "Restart daemon")
    try:
        if systemd is not None:
            systemd.restart()
        else:
            on.ask("stop", name=on.daemon, hand_over=True, within=HAND_OVER_TIMEOUT)
            words = [dora, *daemon_arguments(on.cluster, on.machine)]
            on.ask("start", name=on.daemon, words=words)
    except DoraError:
        if not quiet:
            step.failed()
        raise
    if not quiet:
        step.ok()


def _wait_for_reconnect(on: OnMachine, systemd: Systemd | None, version: str) -> None:
    step = _Step("Waiting for reconnect")
    try:
        _poll(lambda: _runs(on, version), f"dora {version} did not connect")
    except DoraError as problem:
        step.failed()
        lines = _last_lines(on, systemd)
        raise NotReady(f"{problem}; its last lines:\n{lines}") from problem
    step.ok(step.seconds())


def _last_lines(on: OnMachine, systemd: Systemd | None) -> str:
    if systemd is not None:
        lines = systemd.journal(LAST_LINES)
    else:
        lines = on.ask("tail", name=on.daemon, lines=LAST_LINES)["lines"] or []
    return "\n".join(f"    {line}" for line in lines)


def _require_nodes(on: OnMachine, before: Mapping[tuple[str, str], NodeSummary]) -> None:
    """Every node that ran there runs on as the same process."""
    if not before:
        return
    step = _Step("Its dataflows")
    problems: list[str] = []

    def go_on() -> bool:
        nonlocal problems
        after = _nodes(on)
        problems = [
            problem
            for key, node in before.items()
            if (problem := _what_became_of(node, after.get(key))) is not None
        ]
        return not problems

    try:
        _poll(go_on, "")
    except DoraError:
        step.failed()
        raise NotReady("its dataflows did not go on: " + "; ".join(problems)) from None
    step.ok(f"{len({dataflow for dataflow, _ in before})} go on, {len(before)} nodes")


def _what_became_of(before: NodeSummary, after: NodeSummary | None) -> str | None:
    if after is None or after.status in ("Unknown", "Failed"):
        state = "gone" if after is None else after.status
        return f'node "{before.node}" is {state}'
    if after.pid != before.pid and after.restarts <= before.restarts:
        return f'node "{before.node}" was started anew'
    return None


# ---------------------------------------------------------------------------------- looking


def _release(on: OnMachine) -> str:
    """Of the daemon that is connected; empty when none is."""
    found = coordinator_here.connected(coordinator_here.report(on.cluster)).get(on.machine.id)
    return found.release if found is not None else ""


def _runs(on: OnMachine, version: str) -> bool:
    return _release(on) == version


def _nodes(on: OnMachine) -> dict[tuple[str, str], NodeSummary]:
    """What runs on the machine, by dataflow and node."""
    found = _all_nodes(on.cluster)
    return {key: node for key, node in found.items() if node.daemon == on.machine.id}


def _all_nodes(cluster: Cluster) -> dict[tuple[str, str], NodeSummary]:
    try:
        with Client(coordinator_here.where(cluster)) as client:
            found = client.ask(ListNodes(), NodeList).nodes
    except (CoordinatorUnreachable, ConnectionLost):
        return {}
    return {(one.dataflow, one.node): one for one in found if one.pid is not None}


def _wait_for_everybody(
    before: Mapping[tuple[str, str], NodeSummary], cluster: Cluster, *, keep_going: bool
) -> None:
    """Until the new coordinator knows of every node that the old one knew of."""
    step = _Step("Waiting for its daemons")
    try:
        _poll(lambda: before.keys() <= _all_nodes(cluster).keys(), "not all nodes are back")
    except DoraError:
        step.failed()
        missing = sorted(node for _, node in before.keys() - _all_nodes(cluster).keys())
        problem = (
            "the coordinator was upgraded, but not all nodes are known again: "
            f"{', '.join(missing)}; see `dora cluster status`"
        )
        if not keep_going:
            raise NotReady(f"{problem}; no machine was touched") from None
        output.warn(problem)
        return
    step.ok(step.seconds())


def _poll(condition: Callable[[], bool], problem: str) -> None:
    deadline = time.monotonic() + RECONNECT_TIMEOUT
    while not condition():
        if time.monotonic() > deadline:
            raise NotReady(f"{problem} within {RECONNECT_TIMEOUT:g} s")
        time.sleep(POLL_INTERVAL)
