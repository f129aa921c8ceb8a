"""`dora cluster up`: a coordinator here, a daemon in the background of every machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dora_cli import output
from dora_cli._version import __version__
from dora_cli.bundle.install import Installer
from dora_cli.bundle.layout import USER
from dora_cli.cluster.coordinator import local as coordinator_here
from dora_cli.cluster.coordinator import service as coordinator_service
from dora_cli.cluster.decisions.daemon_argv import ssh_name
from dora_cli.cluster.decisions.health import Health, unresponsive, unusable_disks
from dora_cli.cluster.decisions.preflight import Facts, NotReady, require_ready, warnings
from dora_cli.cluster.machines.background_daemon import begin, differences, hand_over
from dora_cli.cluster.machines.daemon_service import Systemd
from dora_cli.cluster.machines.parallel import Done, OnMachine, Say, on_machines
from dora_cli.cluster.operations import leftovers
from dora_cli.cluster.ownership import known_clusters as remembered
from dora_cli.cluster.ownership.eviction import take_over
from dora_cli.cluster.ownership.operator import keep_token
from dora_cli.cluster.ownership.reservation import Errand, Guard, guarded
from dora_config.cluster.models import Cluster
from dora_config.protocol.control import DaemonSummary

LAST_LINES = 20


@dataclass(frozen=True, slots=True)
class Started:
    """How a daemon came to run."""

    said: str
    remarks: tuple[str, ...] = field(default=())


def bring_up(
    cluster: Cluster, installer: Installer, errand: Errand, *, recreate_store: bool = False
) -> bool:
    """All of it; whether every daemon is connected."""
    with guarded(cluster, errand) as guard:
        return _bring_up(cluster, installer, guard, recreate_store=recreate_store)


def _bring_up(
    cluster: Cluster, installer: Installer, guard: Guard, *, recreate_store: bool
) -> bool:
    address = coordinator_here.where(cluster)
    known = coordinator_here.report(cluster)
    begun = None
    if known is None:
        if not coordinator_service.start(cluster, recreate_store=recreate_store):
            begun = coordinator_here.start(cluster, recreate_store=recreate_store)
        output.write(f"Starting coordinator on {address}... OK")
    else:
        output.write(f"Starting coordinator on {address}... runs already")
        if recreate_store:
            output.warn("its store is in use and stays: run `dora cluster down` before that")
    keep_token()
    there = coordinator_here.connected(known)

    def work(on: OnMachine, say: Say) -> Started:
        return _start_daemon(on, installer, there, guard, say)

    label = "Starting daemon on {name}"
    done = on_machines(cluster, label, work, said=lambda one: one.said, links=guard)
    _remarks(done)
    started = [one.machine.id for one in done if one.ok]
    if not started:
        if begun is not None and coordinator_here.end_unused(cluster, begun):
            remembered.forget(cluster)
            output.remark("No daemon was started, so the coordinator was ended again.")
        return False
    found = coordinator_here.wait_for(cluster, started)
    leftovers.report(guard, coordinator_here.connected(coordinator_here.report(cluster)).values())
    late = [one for one in done if one.ok and one.machine.id not in found]
    if late:
        _explain_late(cluster, late)
    return _summary(cluster, [one for one in done if not one.ok], late)


def _summary(
    cluster: Cluster, failed: Sequence[Done[Started]], late: Sequence[Done[Started]]
) -> bool:
    count = len(cluster.machines)
    if not failed and not late:
        output.write(f"All {count} daemons connected." if count > 1 else "The daemon connected.")
        return True
    missing = ", ".join(one.machine.id for one in (*failed, *late))
    there = count - len(failed) - len(late)
    output.write(f"Cluster partially up: {there} of {count} daemons connected, missing: {missing}")
    return False


def _remarks(done: Sequence[Done[Started]]) -> None:
    for one in done:
        for remark in one.result.remarks if one.result is not None else ():
            output.warn(f"{ssh_name(one.machine)}: {remark}")


def _start_daemon(
    on: OnMachine,
    installer: Installer,
    there: Mapping[str, DaemonSummary],
    guard: Guard,
    say: Say,
) -> Started:
    facts = on.facts()
    require_ready(facts, on.machine)
    if take_over(on, guard, say):
        facts = on.facts()
    remarks = tuple(warnings(facts))
    systemd = Systemd.found(on, facts)
    other = there.get(on.machine.id)
    health = on.health(facts)
    _require_healthy(on, facts, health, other)
    changed = differences(on, facts)
    if health.missing_program and systemd is None:
        changed = changed or "program"
    elif other is not None and (not changed or systemd is not None or not _is_ours(on, other)):
        said = _runs_already(on, facts, systemd, other)
        if changed:
            command = "install" if systemd is not None else "upgrade"
            remarks += (
                f"the cluster file has other {changed} for it than it was started with: run "
                f"`dora cluster {command}`",
            )
        return Started(said, remarks)
    _require_coordinator(on, say)
    if systemd is not None:
        say(f"starting {on.service}")
        systemd.start()
        return Started(f"OK (service {on.service})", remarks)
    dora = on.machine.dora or installer.ensure_installed(on.link, USER, say).dora
    if facts.daemon is not None:  # changed, or it cannot log in: perhaps its token is an old one
        say("handing over")
        hand_over(on)
    say("starting")
    guard.keep_owner(on)
    begin(on, dora, token=coordinator_here.where(on.cluster).token)
    return Started(f"OK (started anew with its new {changed})" if changed else "OK", remarks)


def _require_healthy(
    on: OnMachine, facts: Facts, health: Health, other: DaemonSummary | None
) -> None:
    """Raises NotReady before anything waits for a daemon or a disk that does not work."""
    problems = list(unusable_disks(facts, health, on.machine))
    problem = unresponsive(facts, health, other)
    if problem is not None:
        problems.append(problem)
    if problems:
        raise NotReady("; ".join(problems))


def _is_ours(on: OnMachine, other: DaemonSummary) -> bool:
    """Whether starting it anew leaves its version as it is."""
    return on.machine.dora is not None or other.release == __version__


def _runs_already(
    on: OnMachine, facts: Facts, systemd: Systemd | None, other: DaemonSummary
) -> str:
    if facts.daemon is None and (systemd is None or not systemd.is_active()):
        raise NotReady(
            f"another machine, at {other.address or 'an unknown address'}, is connected with "
            f'machine id "{on.machine.id}", and no daemon runs here; every machine needs an id '
            "of its own"
        )
    return f"runs already (dora {other.release})"


def _require_coordinator(on: OnMachine, say: Say) -> None:
    say("looking for the coordinator")
    address, port = on.cluster.coordinator.addr, on.cluster.coordinator.port
    found = on.ask("reach", host=address, port=port)
    if not found["reached"]:
        raise NotReady(
            f"from there the coordinator at {address} port {port} cannot be reached: "
            f"{found['reason']}; open the port, or correct coordinator.addr"
        )


def _explain_late(cluster: Cluster, late: Sequence[Done[Started]]) -> None:
    """The last words of daemons that were started and did not connect."""
    seconds = f"{coordinator_here.CONNECT_TIMEOUT:g} s"

    def last_words(on: OnMachine, say: Say) -> list[str]:
        systemd = Systemd.found(on, on.facts())
        if systemd is not None:
            return systemd.journal(LAST_LINES)
        found = on.ask("tail", name=on.daemon, lines=LAST_LINES)
        return [*(found["lines"] or ["(it printed nothing)"]), f"(log: {found['path']})"]

    machines = [one.machine for one in late]
    done = on_machines(
        cluster,
        f"Daemon on {{name}} did not connect within {seconds}",
        last_words,
        machines=machines,
        said=lambda lines: "".join(f"\n  {line}" for line in lines),
    )
    assert len(done) == len(late)
