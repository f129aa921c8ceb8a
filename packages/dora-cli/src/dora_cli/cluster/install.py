"""`dora cluster install` and `uninstall`: the daemons as services of systemd."""

from __future__ import annotations

from dataclasses import dataclass

from dora_cli import output
from dora_cli.bundle.install import Installer, probe
from dora_cli.bundle.layout import Layout
from dora_cli.cluster import coordinator_service, leftovers
from dora_cli.cluster import known_clusters as remembered
from dora_cli.cluster import local_coordinator as coordinator_here
from dora_cli.cluster.daemon_argv import daemon_arguments, ssh_name
from dora_cli.cluster.eviction import take_over
from dora_cli.cluster.guard import Errand, Guard, guarded
from dora_cli.cluster.machines import Done, OnMachine, Say, layout_of, on_machines
from dora_cli.cluster.operator import keep_token
from dora_cli.cluster.preflight import Facts, require_ready, warnings
from dora_cli.cluster.service import Systemd
from dora_config.access import ensure_token
from dora_config.cluster.models import Cluster

STOP_TIMEOUT = 60.0


@dataclass(frozen=True, slots=True)
class Installed:
    """How it went on one machine."""

    said: str
    remarks: tuple[str, ...] = ()


def install(
    cluster: Cluster, installer: Installer, errand: Errand, *, user: bool, coordinator: bool = True
) -> bool:
    """Whether every machine has its service, and (if the coordinator runs) is connected."""
    with guarded(cluster, errand) as guard:
        return _install_all(cluster, installer, guard, user=user, coordinator=coordinator)


def _install_all(
    cluster: Cluster, installer: Installer, guard: Guard, *, user: bool, coordinator: bool
) -> bool:
    token, _ = ensure_token()
    keep_token()
    coordinator_here.report(cluster)  # a coordinator with another token is an error now

    def work(on: OnMachine, say: Say) -> Installed:
        return _install(on, installer, layout_of(on.machine, user=user), token, guard, say)

    ready = not coordinator or coordinator_service.install(cluster, installer, token, user=user)
    label = "Installing dora-daemon-{id} on {target}"
    done = on_machines(cluster, label, work, said=lambda one: one.said, links=guard)
    for one in done:
        for remark in one.result.remarks if one.result is not None else ():
            output.warn(f"{ssh_name(one.machine)}: {remark}")
    output.write(succeeded(done))
    leftovers.report(guard, coordinator_here.connected(coordinator_here.report(cluster)).values())
    connected = all(one.ok for one in done) and _connected(cluster, [d.machine.id for d in done])
    return ready and connected


def _install(
    on: OnMachine, installer: Installer, layout: Layout, token: str, guard: Guard, say: Say
) -> Installed:
    facts = on.facts()
    require_ready(facts, on.machine, service=True)
    if take_over(on, guard, say):
        facts = on.facts()
    systemd = Systemd(on, facts, user=not layout.sudo)
    tree = None
    if on.machine.dora is not None:
        dora = on.machine.dora
    else:
        put = installer.ensure_installed(on.link, layout, say)
        dora, tree = put.dora, put.tree
    active = systemd.is_active()  # it asks as root: where root is refused, nothing has changed yet
    if facts.daemon is not None and not active:
        say("handing over")  # from the daemon of `up`: its dataflows go on under the service
        on.ask("stop", name=on.daemon, hand_over=True, within=STOP_TIMEOUT)
        on.ask("clean", name=on.daemon, keep_state=True)
    say("starting the service")
    guard.keep_owner(on)
    stale = not _is_as_wanted(on, facts, tree)
    return Installed(systemd.install(dora, token, stale=stale), tuple(warnings(facts)))


def _is_as_wanted(on: OnMachine, facts: Facts, tree: str | None) -> bool:
    """Whether the daemon that runs is of that tree (None: of any), and was started as it would be
    now.
    """
    if facts.daemon is None:
        return False
    arguments = tuple(daemon_arguments(on.cluster, on.machine))
    return facts.daemon.arguments == arguments and tree in (None, facts.daemon.tree)


def _connected(cluster: Cluster, wanted: list[str]) -> bool:
    if coordinator_here.report(cluster) is None:
        address = coordinator_here.where(cluster)
        output.remark(
            f"No coordinator answers at {address} yet; the daemons connect as soon as one does: "
            "`dora cluster up` starts it"
        )
        return True
    found = coordinator_here.wait_for(cluster, wanted)
    missing = [name for name in wanted if name not in found]
    if missing:
        output.remark(
            f"not connected within {coordinator_here.CONNECT_TIMEOUT:g} s: {', '.join(missing)}; "
            "see `dora cluster logs` and `dora cluster doctor`"
        )
    return not missing


def uninstall(cluster: Cluster, installer: Installer, errand: Errand) -> bool:
    """Take everything away again; whether that worked on every machine."""

    def work(on: OnMachine, say: Say) -> str:
        return _uninstall(on, installer, say)

    with guarded(cluster, errand) as guard:
        label = "Uninstalling dora-daemon-{id} from {target}"
        done = on_machines(cluster, label, work, said=str, links=guard)
        output.write(succeeded(done))
        gone = coordinator_service.uninstall(cluster, installer)
    if not gone or not all(one.ok for one in done):
        return False
    remembered.forget(cluster)
    return True


def _uninstall(on: OnMachine, installer: Installer, say: Say) -> str:
    facts = on.facts()
    systemd = Systemd.found(on, facts)
    if systemd is None:
        return "OK (it was not installed)"
    layout = layout_of(on.machine, user=systemd.user)
    removes = on.machine.dora is None and not systemd.others()
    if removes:
        probe(on.link, layout)  # it refuses a wrong prefix before anything is done
    say("stopping the service")
    systemd.disable()
    on.ask("clean", name=on.daemon, keep_state=False)
    if removes:
        say("removing dora")
        installer.remove(on.link, layout)
    systemd.remove()
    return "OK"


def succeeded(done: list[Done[Installed]] | list[Done[str]]) -> str:
    """``2/2 succeeded.``"""
    return f"{sum(one.ok for one in done)}/{len(done)} succeeded."
