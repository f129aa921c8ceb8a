"""`dora cluster upgrade`, and what `rollback` shares: one machine after the other, dataflows go on.

On each machine the new version is put beside the old one and tested there; then the link is
switched and the daemon restarted as a hand-over, which its runners outlive. A daemon that does not
come back, or comes back without its dataflows, is returned to the version before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from dora_cli import output
from dora_cli.bundle.install import Installer, probe
from dora_cli.bundle.layout import Layout
from dora_cli.bundle.machine import ask
from dora_cli.cluster import local_coordinator as coordinator_here
from dora_cli.cluster.background_daemon import begin, hand_over
from dora_cli.cluster.coordinator_upgrade import upgrade_coordinator
from dora_cli.cluster.daemon_argv import ssh_name
from dora_cli.cluster.machines import OnMachine, layout_of, target_of, without_name
from dora_cli.cluster.preflight import Facts, NotReady
from dora_cli.cluster.service import Systemd
from dora_cli.cluster.state_left import with_state_left
from dora_cli.coordinator.client import Client, CoordinatorLost, CoordinatorUnreachable
from dora_cli.ssh import ConnectionLost, connect
from dora_config import DoraError
from dora_config.cluster.models import Cluster, Machine
from dora_config.protocol.control import ListNodes, NodeList, NodeSummary

RECONNECT_TIMEOUT = 30.0
POLL_INTERVAL = 0.5
LAST_LINES = 8


@dataclass(frozen=True, slots=True)
class Switched:
    """What was switched to; ``files``: of the service from now on, ``None`` as they are."""

    dora: str
    version: str
    files: Mapping[str, bytes | None] | None = None


@dataclass(frozen=True, slots=True)
class Old:
    """What a machine is returned to."""

    release: str
    """Of the daemon that is connected; empty when none is."""
    trees: Mapping[str, str]
    """Names of the trees that ``current`` and ``previous`` lead to, empty for none."""
    files: Mapping[str, bytes | None]
    """Unit and environment of the service, if there is one."""

    @property
    def name(self) -> str:
        return self.release or "the version before"


Switch = Callable[[OnMachine, Layout, Systemd | None, str], Switched | None]
"""Has a machine call another version; ``None``: it runs that already. The text names the tree that
its daemon runs from.
"""


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
    require_coordinator(cluster)

    def work() -> bool:
        return _upgrade(cluster, installer, machines, version, keep_going=keep_going)

    remedy = "`dora cluster upgrade` again does the rest; `dora cluster rollback` takes it back."
    return with_state_left(cluster, work, remedy)


def _upgrade(
    cluster: Cluster,
    installer: Installer,
    machines: Sequence[Machine],
    version: str,
    *,
    keep_going: bool,
) -> bool:
    before = all_nodes(cluster)
    if upgrade_coordinator(cluster, installer, version):
        try:
            wait_for_everybody(before, cluster)
        except NotReady as problem:
            if not keep_going:
                raise NotReady(f"{problem}; no machine was touched") from None
            output.warn(str(problem))

    def switch(
        on: OnMachine, layout: Layout, systemd: Systemd | None, _running: str
    ) -> Switched | None:
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
        files = systemd.wanted(layout.link_for(str(facts["home"]))) if systemd is not None else {}
        is_current = current is not None and tree.endswith(f"/{current['name']}")
        if is_current and _runs(on, version) and (systemd is None or systemd.written() == files):
            return None
        done = installer.switch(on.link, layout, tree, facts)
        return Switched(done.dora, version, files)

    return one_by_one(
        cluster,
        installer,
        machines,
        lambda machine: f"Upgrading {ssh_name(machine)}",
        switch,
        keep_going=keep_going,
    )


def require_coordinator(cluster: Cluster) -> None:
    if coordinator_here.report(cluster) is None:
        raise NotReady(
            f"no coordinator answers at {coordinator_here.where(cluster)}; it must confirm that "
            "each daemon comes back, so nothing was changed: start it with `dora cluster up`"
        )


def one_by_one(
    cluster: Cluster,
    installer: Installer,
    machines: Sequence[Machine],
    label: Callable[[Machine], str],
    switch: Switch,
    *,
    keep_going: bool,
    collect: bool = True,
) -> bool:
    """``switch`` and a restart on each machine; ``collect``: then remove what nothing uses."""
    succeeded = 0
    for number, machine in enumerate(machines, 1):
        output.write(f"{label(machine)}...")
        try:
            with connect(target_of(machine)) as link:
                on = OnMachine(cluster, machine, link)
                layout = _one(on, switch)
                if layout is not None and collect:
                    _collect(on, installer, layout)
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


def _one(on: OnMachine, switch: Switch) -> Layout | None:
    """One machine, all or nothing; where its versions lie, None when nothing had to be done."""
    facts = on.facts()
    systemd = Systemd.found(on, facts)
    if systemd is None and facts.daemon is None:
        raise NotReady(
            "no daemon is installed or runs there: use `dora cluster install` or `cluster up`"
        )
    layout = layout_of(on.machine, user=systemd is None or systemd.user)
    nodes = _nodes(on)
    running = PurePosixPath(facts.daemon.tree if facts.daemon is not None else "").name
    old = _old(on, layout, systemd, running)
    try:
        switched = switch(on, layout, systemd, running)
    except BaseException:
        with suppress(DoraError, OSError):  # it may be that it cannot be reached at all
            _over_any_connection(on, lambda there: _restore_links(there, layout, old))
        raise
    if switched is None:
        output.write("  It runs that version already")
        return None
    try:
        if systemd is not None and switched.files:
            systemd.put(switched.files)
        _restart(on, facts, systemd, switched.dora)
        _wait_for_reconnect(on, systemd, switched.version)
        _require_nodes(on, nodes)
    except (DoraError, OSError) as problem:
        _take_back(on, facts, layout, switched, old, str(problem))
        raise NotReady(f"{problem}\n  (it runs {old.name} again)") from problem
    except BaseException:  # Ctrl-C
        output.write(f"  Interrupted: returning to {old.name}; a second Ctrl-C leaves it as it is")
        _take_back(on, facts, layout, switched, old, "interrupted")
        raise
    return layout


def _collect(on: OnMachine, installer: Installer, layout: Layout) -> None:
    try:
        installer.collect(on.link, layout)
    except (DoraError, OSError) as problem:
        reason = without_name(str(problem), ssh_name(on.machine))
        output.warn(f"versions that nothing uses were not removed there: {reason}")


def _over_any_connection(on: OnMachine, work: Callable[[OnMachine], None]) -> None:
    """Work that undoes: when the connection broke, a new one is made for it."""
    try:
        work(on)
    except ConnectionLost:
        with connect(target_of(on.machine)) as link:
            work(OnMachine(on.cluster, on.machine, link))


def trees(found: Mapping[str, Any]) -> dict[str, str]:
    """Names of the current and the previous version that a probe found, empty for none."""
    return {link: found[link]["name"] if found[link] else "" for link in ("current", "previous")}


def _trees(on: OnMachine, layout: Layout) -> dict[str, str]:
    return trees(probe(on.link, layout))


def _old(on: OnMachine, layout: Layout, systemd: Systemd | None, running: str) -> Old:
    """What the machine is returned to if need be; a rollback later finds the unit of now."""
    found = _trees(on, layout)
    before = trees_before(found, running)
    files = systemd.written() if systemd is not None else {}
    if systemd is not None and (name := before["current"]):
        kept = kept_unit(on, layout, name)
        if before == found:
            on.link.write(kept, files[systemd.unit] or b"", sudo=layout.sudo)
        elif (unit := on.link.read(kept, sudo=layout.sudo)) is not None:
            files[systemd.unit] = unit
    return Old(_release(on), before, files)


def trees_before(found: dict[str, str], running: str) -> dict[str, str]:
    """The links that belong to what runs: a switch may have been cut off before the restart."""
    current, previous = found["current"], found["previous"]
    if running in ("", current) or not current:
        return found
    if running == previous:  # an upgrade
        return {"current": running, "previous": ""}
    if previous == current:  # a rollback
        return {"current": running, "previous": previous}
    return found


def kept_unit(on: OnMachine, layout: Layout, name: str) -> str:
    """The unit beside the version that it was written for."""
    return f"{probe(on.link, layout)['prefix']}/{name}/{on.service}.service"


def _restore_links(on: OnMachine, layout: Layout, old: Old) -> None:
    if _trees(on, layout) == old.trees:
        return
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
    layout: Layout,
    switched: Switched,
    old: Old,
    problem: str,
) -> None:
    """Have everything as it was; NotReady with ``problem`` when that does not work either."""
    step = _Step(f"Return to {old.name}")
    try:
        _over_any_connection(on, lambda there: _return(there, facts, layout, switched, old))
    except (DoraError, OSError) as second:
        step.failed()
        reason = without_name(str(second), ssh_name(on.machine))
        raise NotReady(
            f"{problem}\n  and it could not be returned: {reason}\n"
            "  Run this command again when it can be reached: that does the rest"
        ) from second
    step.ok()


def _return(on: OnMachine, facts: Facts, layout: Layout, switched: Switched, old: Old) -> None:
    systemd = Systemd.found(on, facts)
    if systemd is not None:
        systemd.put(old.files)
    _restore_links(on, layout, old)
    _restart(on, facts, systemd, switched.dora, quiet=True)
    if old.release:
        _poll(lambda: _runs(on, old.release), f"dora {old.release} did not connect either")


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
            hand_over(on)
            begin(on, dora)
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
    found = all_nodes(on.cluster)
    return {key: node for key, node in found.items() if node.daemon == on.machine.id}


def all_nodes(cluster: Cluster) -> dict[tuple[str, str], NodeSummary]:
    try:
        with Client(coordinator_here.where(cluster)) as client:
            found = client.ask(ListNodes(), NodeList).nodes
    except (CoordinatorUnreachable, CoordinatorLost):
        return {}
    return {(one.dataflow, one.node): one for one in found if one.pid is not None}


def wait_for_everybody(before: Mapping[tuple[str, str], NodeSummary], cluster: Cluster) -> None:
    """Until the new coordinator knows of every node that the old one knew of."""
    step = _Step("Waiting for its daemons")
    try:
        _poll(lambda: before.keys() <= all_nodes(cluster).keys(), "not all nodes are back")
    except DoraError:
        step.failed()
        missing = sorted(node for _, node in before.keys() - all_nodes(cluster).keys())
        raise NotReady(
            "the coordinator was replaced, but not all nodes are known again: "
            f"{', '.join(missing)}; see `dora cluster status`"
        ) from None
    step.ok(step.seconds())


def _poll(condition: Callable[[], bool], problem: str) -> None:
    deadline = time.monotonic() + RECONNECT_TIMEOUT
    while not condition():
        if time.monotonic() > deadline:
            raise NotReady(f"{problem} within {RECONNECT_TIMEOUT:g} s")
        time.sleep(POLL_INTERVAL)
