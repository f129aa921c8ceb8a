"""Switches the coordinator's systemd service to another version, and back if that fails."""

from __future__ import annotations

from dataclasses import dataclass

from dora_cli import output
from dora_cli.bundle.install import Installer
from dora_cli.cluster.coordinator import queries
from dora_cli.cluster.coordinator.local import PRINT_STORE, PRINT_VERSION
from dora_cli.cluster.coordinator.service import CoordinatorService, program_words
from dora_cli.cluster.coordinator.trust import trust_authority
from dora_cli.cluster.decisions.coordinator_unit import unit_program, unit_version
from dora_cli.cluster.decisions.preflight import NotReady
from dora_cli.cluster.decisions.rollback_plan import Versions
from dora_config import DoraError


def service_versions(service: CoordinatorService, now: str) -> Versions:
    """Return the running version and the one that an upgrade replaced."""
    text, before = service.text(), service.text_before()
    if before is None:
        return Versions(now, there=(now,))
    if before == text:
        return Versions(now, returned=True, there=(now,))
    version = unit_version(before)
    return Versions(now, version, there=(now, version))


def upgrade_service(
    service: CoordinatorService, installer: Installer, old: str, version: str
) -> None:
    """Switch to this version; raises NotReady if that fails, with the old version running."""
    host = service.host
    if host.machine.dora is not None:
        raise NotReady(
            f"the cluster file names the coordinator's program, {host.machine.dora}; upgrade that "
            "program by the way it was installed, or remove `coordinator.dora` from the file"
        )
    host.connection.check(["true"], sudo=not service.user)  # fails before anything is changed
    text = service.render(program_words(host, installer, user=service.user), version)
    _Switch(service, old, version).run(text, keep=service.text() or "")


def roll_back_service(service: CoordinatorService, now: str) -> bool:
    """Switch to the version that an upgrade replaced; return whether that was done."""
    before = service.text_before()
    version = unit_version(before or "")
    if before is None or before == service.text():
        output.remark(f"The coordinator stays at dora {now}: it has no upgrade to undo")
        return False
    program = unit_program(before)
    found = _program_version(service, program)
    if found != version:
        state = f"is dora {found} now" if found else "does not run any more"
        output.warn(
            f"the coordinator stays at dora {now}: {program}, which was {version}, {state}; to "
            f"return it too, install dora {version} and run `dora cluster upgrade` from there"
        )
        return False
    _Switch(service, now, version).run(before, keep=before)
    return True


def _program_version(service: CoordinatorService, program: str) -> str:
    """Return the present version of a unit's program; empty if it does not run."""
    if program.endswith("/dora"):
        words = [program, "--version"]
    else:
        words = [program, "-P", "-c", PRINT_VERSION]
    done = service.host.connection.run(words)
    return done.stdout.strip().removeprefix("dora ") if done.code == 0 else ""


def service_stores(service: CoordinatorService) -> tuple[str, str]:
    """Return the versions of the store of the present and the replaced program.

    Empty: unknown, as for a program that the cluster file names.
    """
    return _printed_store(service, service.text()), _printed_store(service, service.text_before())


def _printed_store(service: CoordinatorService, text: str | None) -> str:
    program = unit_program(text or "")
    if not program or program.endswith("/dora"):
        return ""
    done = service.host.connection.run([program, "-P", "-c", PRINT_STORE])
    return done.stdout.strip() if done.code == 0 else ""


@dataclass(frozen=True, slots=True)
class _Switch:
    """Replaces the service's unit, or restores the old unit with its store."""

    service: CoordinatorService
    old: str
    new: str

    def run(self, text: str, *, keep: str) -> None:
        """Switch to the unit ``text``.

        ``keep``: the unit that a rollback restores; ``text`` if there is nothing to roll back.
        """
        service = self.service
        copy: str | None = service.host.call("coordinator.copy_store", version=self.old)["copy"]
        before = (service.text() or "").encode()
        try:
            service.replace_files_and_restart({service.unit: text.encode()})
            if service.host.is_remote:
                trust_authority(service)
            service.wait_until(lambda: self._runs(self.new), f"does not run dora {self.new}")
            service.keep_before(keep)
        except BaseException as problem:
            outcome = f"the old one, {self.old}, {self._restore(before, copy)}"
            if isinstance(problem, DoraError | OSError):
                raise NotReady(
                    f"dora {self.new} could not replace the coordinator; {outcome}: {problem}"
                ) from problem
            output.warn(f"the coordinator was not replaced; {outcome}")  # Ctrl-C
            raise
        remark = f" (store copied to {copy})" if copy else ""
        output.write(f"  dora {self.old} -> {self.new}... OK{remark}")

    def _runs(self, version: str) -> bool:
        """Return whether this version answers; False while it is busy."""
        report = queries.fetch_report(self.service.host.cluster)
        return report is not None and report.coordinator.release == version

    def _restore(self, unit: bytes, copy: str | None) -> str:
        """Start the old unit again; return what happened, as the end of a sentence."""
        service = self.service
        try:
            if self._runs(self.old):
                service.replace_files({service.unit: unit})
                return "still runs"
            service.stop()
            if copy is not None:
                service.host.call("coordinator.restore_store", copy=copy)
            service.replace_files_and_restart({service.unit: unit})
            service.wait_until(lambda: self._runs(self.old), f"does not run dora {self.old}")
        except (DoraError, OSError) as problem:
            return f"could not be started again ({problem})"
        return "is started again"
