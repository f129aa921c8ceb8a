"""The coordinator as a service of systemd: on this machine, or on `coordinator.host` over SSH."""

from __future__ import annotations

import os
import pwd
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from dora_cli import output
from dora_cli._version import __version__
from dora_cli.bundle.install import Installer
from dora_cli.bundle.layout import COORDINATOR, USERS_COORDINATOR
from dora_cli.cluster.coordinator import local as coordinator_here
from dora_cli.cluster.coordinator.process import MODULE, end_process, find_process
from dora_cli.cluster.decisions.coordinator_unit import (
    address,
    coordinator_service_name,
    render_coordinator_unit,
    unit_address,
    unit_program,
    unit_version,
)
from dora_cli.cluster.decisions.preflight import Facts, NotReady, require_ready
from dora_cli.cluster.decisions.rollback_plan import Versions
from dora_cli.cluster.machines.daemon_service import Systemd
from dora_cli.cluster.machines.parallel import OnMachine, target_of, without_name
from dora_cli.ssh import SudoUnavailable, connect
from dora_cli.ssh.local import LocalConnection
from dora_config import DoraError
from dora_config.cluster.models import Cluster, Machine
from dora_config.spawn_argv import run_module

START_TIMEOUT = 30.0
END_TIMEOUT = 5.0
LAST_LINES = 12
POLL_INTERVAL = 0.2
_ASK_VERSION = "from dora_coordinator._version import __version__; print(__version__)"
_SYSTEMD = Path("/run/systemd/system")


class OnCoordinator(OnMachine):
    """A connection to the coordinator's machine, or to this one."""

    @property
    def service(self) -> str:
        return coordinator_service_name(self.cluster)

    @property
    def is_remote(self) -> bool:
        return self.cluster.coordinator.host is not None

    @property
    def where(self) -> str:
        return self.machine.target if self.is_remote else "this machine"


class CoordinatorService(Systemd):
    """The service on the machine of the coordinator, installed or not."""

    def __init__(self, on: OnCoordinator, facts: Facts, *, user: bool) -> None:
        super().__init__(on, facts, user=user)
        self.on = on
        self._secrets = f"{facts.home}/.config/{on.service}" if user else f"/etc/{on.service}"
        self.token = f"{self._secrets}/token"
        self.environment = f"{self._secrets}/environment"
        self.before = f"{self._secrets}/before.service"
        """The unit that the last upgrade replaced; after a rollback, the one that is there."""

    def text(self) -> str | None:
        """The unit that is there."""
        return self._text(self.unit)

    def text_before(self) -> str | None:
        return self._text(self.before)

    def _text(self, path: str) -> str | None:
        found = self.on.link.read(path, sudo=self._sudo and path != self.unit)
        return None if found is None else found.decode(errors="replace")

    def render(self, words: list[str], version: str) -> str:
        return render_coordinator_unit(
            self.on.cluster,
            [*words, *coordinator_here.arguments(self.on.cluster), "--store", "redb"],
            version=version,
            token=self.token,
            user=None if self.user else self._facts.user,
            environment={} if self.on.is_remote else _own_environment(),
        )

    def state(self) -> str:
        """As systemd names it: active, activating, inactive, failed."""
        return self._run("is-active", self.on.service, sudo=False).stdout.strip()

    def is_active(self) -> bool:
        return self.state() == "active"

    def keep(self, text: str) -> None:
        """Remember ``text`` as the unit that a rollback returns to."""
        self._write(self.before, text.encode(), mode=0o600)

    def switch(self, text: str) -> None:
        """Another unit, and a new process of it, in one go."""
        files = {self.unit: text.encode()}
        self._stage(files)
        self._commit("restart", files)

    def set_up(self, text: str, token: str) -> str:
        """Install and start it with this unit; "OK", or that it runs so already."""
        wanted = {self.token: f"{token}\n".encode(), self.unit: text.encode()}
        if all(self._read(path) == content for path, content in wanted.items()):
            if self.is_active():
                self._ctl("enable", self.on.service)
                return "runs already"
        elif self.user:
            self.on.link.check(["mkdir", "-p", self._units])
        self._stage(wanted)
        if self.user:
            self._linger()
        self._commit("restart", wanted)
        return "OK"

    def others(self) -> bool:
        """Whether other units of dora are on the machine."""
        script = 'for one in "$1"/dora-*.service; do [ ! -e "$one" ] || echo "$one"; done'
        return any(one != self.unit for one in self.on.link.script(script, self._units).split())

    def disable(self) -> None:
        self.on.link.check(["rm", "-f", self.before], sudo=self._sudo)
        super().disable()


def _own_environment() -> dict[str, str]:
    """What a service of this account needs to find the same folders and packages as we do."""
    names = [name for name in os.environ if name.startswith("PYTHON")]
    names += [name for name in ("XDG_STATE_HOME", "XDG_CONFIG_HOME") if name in os.environ]
    found = {name: os.environ[name] for name in names}
    home = str(Path.home())
    return found if home == pwd.getpwuid(os.getuid()).pw_dir else {**found, "HOME": home}


# ---------------------------------------------------------------------------------- where


def _is_here(cluster: Cluster) -> bool:
    """Whether a service of this machine's systemd would have the coordinator's address."""
    if not _SYSTEMD.is_dir() or not coordinator_here.is_own(cluster.coordinator.addr):
        return False
    with suppress(OSError):  # only root may look
        return Path("/proc/1/ns/net").stat().st_ino == Path("/proc/self/ns/net").stat().st_ino
    return True


@contextmanager
def _opened(cluster: Cluster) -> Iterator[OnCoordinator | None]:
    """The machine that has, or could have, the service; None: neither this one nor one named."""
    coordinator = cluster.coordinator
    if coordinator.host is not None:
        machine = Machine(
            id="coordinator",
            host=coordinator.host,
            user=coordinator.user,
            port=coordinator.ssh_port,
            identity_file=coordinator.identity_file,
            dora=coordinator.dora,
        )
        with connect(target_of(machine)) as link:
            yield OnCoordinator(cluster, machine, link)
    elif _is_here(cluster):
        here = Machine(id="coordinator", host=socket.gethostname())
        yield OnCoordinator(cluster, here, LocalConnection())
    else:
        yield None


@contextmanager
def installed(cluster: Cluster) -> Iterator[CoordinatorService | None]:
    """The coordinator's service, if one of this cluster is installed."""
    with _opened(cluster) as on:
        yield None if on is None else _found(on)


def _found(on: OnCoordinator) -> CoordinatorService | None:
    facts = on.facts()
    if not facts.service and not facts.user_service:
        return None
    service = CoordinatorService(on, facts, user=not facts.service)
    text = service.text()
    return service if text is not None and unit_address(text) == address(on.cluster) else None


# ---------------------------------------------------------------------------------- installing


def install(cluster: Cluster, installer: Installer, token: str, *, user: bool) -> bool:
    """Install the coordinator where it belongs; whether that went well, or had not to be done."""
    name = coordinator_service_name(cluster)
    where = cluster.coordinator.target or "this machine"
    try:
        with _opened(cluster) as on:
            if on is None:
                output.remark(_why_not(cluster))
                return True
            said = _install(on, installer, token, user=user)
    except (DoraError, OSError) as problem:
        reason = without_name(without_name(str(problem), "this machine"), f"coordinator ({where})")
        output.write(f"Installing {name} on {where}... FAILED: {reason}")
        return False
    output.write(f"Installing {name} on {where}... {said}")
    return True


def _why_not(cluster: Cluster) -> str:
    addr = cluster.coordinator.addr
    if not coordinator_here.is_own(addr):
        return (
            f"The coordinator was not installed: {addr} is not an address of this machine; run "
            "this command on the machine that has it, or name that machine as `coordinator.host`"
        )
    return (
        "The coordinator was not installed: systemd does not run on this machine; "
        "`dora cluster up` starts it in the background"
    )


def _install(on: OnCoordinator, installer: Installer, token: str, *, user: bool) -> str:
    facts = on.facts()
    require_ready(facts, on.machine, service=True)
    service = CoordinatorService(on, facts, user=user)
    old = service.text()
    if old is not None and unit_address(old) != address(on.cluster):
        raise NotReady(
            f"{on.service} is the coordinator of another cluster there, at "
            f"{unit_address(old) or 'an unknown address'}; uninstall that one first, or give this "
            "one another coordinator.port"
        )
    service.on.link.check(["true"], sudo=not user)  # before anything is done
    text = service.render(_program(on, installer, user=user), _version(on, installer, facts))
    if old is None and on.is_remote:
        on.ask("claim_coordinator")
    elif old is None:
        _take_over(on)
    elif old != text:
        on.ask("copy_store", version=unit_version(old))
    said = service.set_up(text, token)
    _wait_until(service, lambda: coordinator_here.report(on.cluster) is not None, "does not answer")
    return said


def _version(on: OnCoordinator, installer: Installer, facts: Facts) -> str:
    if not on.is_remote:
        return __version__
    return installer.version if facts.dora is None else facts.dora


def _program(on: OnCoordinator, installer: Installer, *, user: bool) -> list[str]:
    """The words that start our version there: this installation, or one that is put there."""
    if not on.is_remote:
        return list(run_module(MODULE))
    if on.machine.dora is not None:
        return [on.machine.dora, "coordinator"]
    layout = USERS_COORDINATOR if user else COORDINATOR
    tree = installer.ensure_installed(on.link, layout, lambda text: None).tree
    return [f"{tree}/bin/python", "-I", "-m", MODULE]


def _take_over(on: OnCoordinator) -> None:
    """End the coordinator that `up` started here: the service has its store, nodes go on."""
    process = None if on.is_remote else find_process(on.cluster)
    if process is None:
        return
    own = process.state / "coordinator" / "store.sqlite3"
    if process.store != own:
        raise NotReady(
            f"a coordinator with another store runs there (process {process.pid}, store "
            f"{process.store or 'in memory'}); the service uses {own}: end that one first"
        )
    end_process(process)


def uninstall(cluster: Cluster, installer: Installer) -> bool:
    """Remove the coordinator's service; its store stays on this machine, and goes on another."""
    name = coordinator_service_name(cluster)
    where = cluster.coordinator.target or "this machine"
    try:
        with installed(cluster) as service:
            if service is None:
                return True
            _uninstall(service, installer)
    except (DoraError, OSError) as problem:
        reason = without_name(without_name(str(problem), "this machine"), f"coordinator ({where})")
        output.write(f"Uninstalling {name} from {where}... FAILED: {reason}")
        return False
    output.write(f"Uninstalling {name} from {where}... OK")
    return True


def _uninstall(service: CoordinatorService, installer: Installer) -> None:
    service.disable()
    on = service.on
    if on.is_remote:
        on.ask("forget_coordinator")
        if on.machine.dora is None:
            installer.remove(on.link, USERS_COORDINATOR if service.user else COORDINATOR)
    service.remove()


# ---------------------------------------------------------------------------------- its life


def start(cluster: Cluster, *, recreate_store: bool) -> bool:
    """Start the service if one is installed, and wait until it answers; whether there is one."""
    with installed(cluster) as service:
        if service is None:
            if cluster.coordinator.host is not None:
                raise NotReady(
                    f"no coordinator answers at {address(cluster)}, and none is installed on "
                    f"{cluster.coordinator.target} (`coordinator.host`): `dora cluster install` "
                    "does that"
                )
            return False
        try:
            if recreate_store:
                service.stop()
                service.on.ask("put_store_aside")
            service.start()
        except SudoUnavailable as problem:
            raise NotReady(
                f"the coordinator is the service {service.on.service}, which root starts: run "
                f"`sudo systemctl start {service.on.service}` on {service.on.where}, then this "
                "command again"
            ) from problem
        _wait_until(
            service, lambda: coordinator_here.report(cluster) is not None, "does not answer"
        )
    return True


def repair(cluster: Cluster) -> str | None:
    """What to do about a service that does not answer; None when it is not installed."""
    try:
        with installed(cluster) as service:
            if service is not None:
                name, where = service.on.service, service.on.where
                return (
                    f"its service {name} on {where} is {service.state()}: `journalctl -u {name}` "
                    "there shows why; `dora cluster up` starts it"
                )
    except (DoraError, OSError) as problem:
        return f"its machine cannot be looked at: {problem}"
    return None


def stop(cluster: Cluster) -> None:
    """Stop the service if one is installed, as `down` has stopped what answers."""
    try:
        with installed(cluster) as service:
            if service is None:
                return
            if not _ends(service):
                service.stop()
            output.remark(
                f"The coordinator's service {service.on.service} starts again with "
                f"{service.on.where}; see `dora cluster uninstall`"
            )
    except SudoUnavailable:
        name = coordinator_service_name(cluster)
        output.warn(f"the coordinator's service may run on: run `sudo systemctl stop {name}`")
    except (DoraError, OSError) as problem:
        output.warn(f"the coordinator's service was not looked at: {problem}")


def _ends(service: CoordinatorService) -> bool:
    """Whether it ends by itself, as after `Destroy`: stopping it takes root's rights."""
    deadline = time.monotonic() + END_TIMEOUT
    while service.state() not in ("inactive", "failed"):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_INTERVAL)
    return True


def _wait_until(service: CoordinatorService, condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while not condition():
        if time.monotonic() > deadline:
            lines = "".join(f"\n  {line}" for line in service.journal(LAST_LINES))
            raise NotReady(
                f"{service.on.service} {what} at {address(service.on.cluster)} within "
                f"{START_TIMEOUT:g} s; its last lines:{lines}"
            )
        time.sleep(POLL_INTERVAL)


# ---------------------------------------------------------------------------------- versions


def versions(service: CoordinatorService, now: str) -> Versions:
    """The version that runs, and the one that an upgrade replaced."""
    text, before = service.text(), service.text_before()
    if before is None:
        return Versions(now, there=(now,))
    if before == text:
        return Versions(now, returned=True, there=(now,))
    version = unit_version(before)
    return Versions(now, version, there=(now, version))


def upgrade(service: CoordinatorService, installer: Installer, old: str, version: str) -> None:
    """Have the service run our version; NotReady when that fails, then it runs the old one."""
    on = service.on
    if on.machine.dora is not None:
        raise NotReady(
            f"the cluster file names the coordinator's program, {on.machine.dora}: upgrade that by "
            "the means by which it came there, or take `coordinator.dora` out of the file"
        )
    service.on.link.check(["true"], sudo=not service.user)
    text = service.render(_program(on, installer, user=service.user), version)
    _replace(service, text, old=old, version=version, back=False)


def roll_back(service: CoordinatorService, now: str) -> bool:
    """Have the service run the version that an upgrade replaced; whether that was done."""
    before = service.text_before()
    version = unit_version(before or "")
    if before is None or before == service.text():
        output.remark(f"The coordinator stays as it is, dora {now}: no upgrade can be taken back")
        return False
    there = _version_of(service, unit_program(before))
    if there != version:
        found = f"is dora {there} now" if there else "does not run any more"
        output.warn(
            f"the coordinator stays dora {now}: {unit_program(before)}, which was {version}, "
            f"{found}; to return it as well, install dora {version} and run `dora cluster upgrade` "
            "with that"
        )
        return False
    _replace(service, before, old=now, version=version, back=True)
    return True


def _version_of(service: CoordinatorService, program: str) -> str:
    """The version of a unit's program as it is there now; empty when it does not run."""
    if program.endswith("/dora"):
        words = [program, "--version"]
    else:
        words = [program, "-P", "-c", _ASK_VERSION]
    done = service.on.link.run(words)
    return done.stdout.strip().removeprefix("dora ") if done.code == 0 else ""


@dataclass(frozen=True, slots=True)
class _Old:
    """What the service is returned to."""

    version: str
    text: str
    copy: str | None
    """Of its store."""


def _replace(service: CoordinatorService, text: str, *, old: str, version: str, back: bool) -> None:
    """Another unit in its place, or the old one with its store as it was."""
    on = service.on
    copy = on.ask("copy_store", version=old)["copy"]
    before = _Old(old, service.text() or "", copy)

    def runs(wanted: str) -> bool:
        report = coordinator_here.report(on.cluster)
        return report is not None and report.coordinator.release == wanted

    try:
        service.switch(text)
        _wait_until(service, lambda: runs(version), f"does not run dora {version}")
        service.keep(text if back else before.text)
    except BaseException as problem:
        said = _return(service, before, lambda: runs(old))
        if isinstance(problem, DoraError | OSError):
            raise NotReady(
                f"dora {version} could not take over the coordinator; the old one, {old}, {said}: "
                f"{problem}"
            ) from problem
        output.warn(f"the coordinator was not replaced; the old one, {old}, {said}")  # Ctrl-C
        raise
    remark = f" (store copied to {copy})" if copy else ""
    output.write(f"  dora {old} -> {version}... OK{remark}")


def _return(service: CoordinatorService, before: _Old, runs: Callable[[], bool]) -> str:
    """Start the old unit again; what became of it, as the end of a sentence."""
    try:
        if runs():
            service.put({service.unit: before.text.encode()})
            return "runs on"
        service.stop()
        if before.copy is not None:
            service.on.ask("restore_store", copy=before.copy)
        service.switch(before.text)
        _wait_until(service, runs, f"does not run dora {before.version}")
    except (DoraError, OSError) as problem:
        return f"could not be started again ({problem})"
    return "is started again"
