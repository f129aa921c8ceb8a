"""Upgrades and rollbacks of a coordinator: its service, or its process on this machine."""

from __future__ import annotations

import os
from pathlib import Path

from dora_cli import output
from dora_cli.bundle.install import Installer
from dora_cli.cluster.coordinator import queries
from dora_cli.cluster.coordinator.local import MODULE, PRINT_STORE
from dora_cli.cluster.coordinator.process import find_process
from dora_cli.cluster.coordinator.process_upgrade import (
    CoordinatorProgram,
    replace_process,
    replaced_program,
)
from dora_cli.cluster.coordinator.service import installed_service
from dora_cli.cluster.coordinator.service_upgrade import (
    roll_back_service,
    service_stores,
    service_versions,
    upgrade_service,
)
from dora_cli.cluster.decisions.preflight import NotReady
from dora_cli.cluster.decisions.rollback_plan import Versions
from dora_config.cluster.models import Cluster
from dora_config.spawn_argv import run_module


def upgrade_coordinator(cluster: Cluster, installer: Installer, version: str) -> bool:
    """Switch it to ``version``, which is ours; return whether it was replaced.

    Raises NotReady if that fails, with the old version running.
    """
    old = queries.release_of(cluster)
    if old == version:
        return False
    address = queries.endpoint_of(cluster)
    with installed_service(cluster) as service:
        if service is not None:
            output.write(f"Upgrading the coordinator on {address}...")
            upgrade_service(service, installer, old, version)
            return True
    process = find_process(cluster)
    if process is None:
        output.warn(
            f"the coordinator at {address} is dora {old} and does not run under this account on "
            f"this machine; upgrade it to {version} where it runs"
        )
        return False
    if not Path(process.directory).is_dir():
        raise NotReady(
            f"the coordinator (process {process.pid}) runs in {process.directory}, which does not "
            "exist any more, so it cannot be replaced; end it and start one with `dora cluster up`"
        )
    output.write(f"Upgrading the coordinator on {address}...")
    variables = {name: text for name, text in os.environ.items() if name.startswith("PYTHON")}
    program = CoordinatorProgram(version, run_module(MODULE), variables)
    replace_process(cluster, process, old, program)
    return True


def coordinator_versions(cluster: Cluster) -> Versions | None:
    """Return the running version and the one that an upgrade replaced; None: no answer."""
    now = queries.release_of(cluster)
    if not now:
        return None
    with installed_service(cluster) as service:
        if service is not None:
            return service_versions(service, now)
    process = find_process(cluster)
    before = replaced_program(process, cluster) if process is not None else None
    if before is None:
        return Versions(now, there=(now,))
    if before.version == now:
        return Versions(now, returned=True, there=(now,))
    return Versions(now, before.version, there=(now, before.version))


def roll_back_coordinator(cluster: Cluster) -> bool:
    """Switch it to the version that an upgrade replaced; return whether that was done.

    Prints why not. Raises NotReady if it fails, with the present version running.
    """
    now = queries.release_of(cluster)
    address = queries.endpoint_of(cluster)
    with installed_service(cluster) as service:
        if service is not None:
            output.write(f"Rolling back the coordinator on {address}...")
            return roll_back_service(service, now)
    process = find_process(cluster)
    before = replaced_program(process, cluster) if process is not None else None
    if process is None or before is None or before.version == now:
        output.remark(
            f"The coordinator on {address} stays at dora {now}: it has no upgrade from this "
            "machine to undo"
        )
        return False
    if (found := before.present_version()) != before.version:
        state = f"is dora {found} now" if found else "does not exist any more"
        output.warn(
            f"the coordinator on {address} stays at dora {now}: {before.words[0]}, which ran "
            f"{before.version}, {state}; to return it too, install dora {before.version} here and "
            "run `dora cluster upgrade` from there"
        )
        return False
    output.write(f"Rolling back the coordinator on {address}...")
    replace_process(cluster, process, now, before, rollback=True)
    return True


def store_problem(cluster: Cluster, version: str) -> str | None:
    """Return why the coordinator cannot return to ``version``, and the remedy.

    None: that version reads the present store, or one of the two cannot be started here.
    """
    with installed_service(cluster) as service:
        if service is not None:
            now, before = service_stores(service)
        else:
            process = find_process(cluster)
            program = replaced_program(process, cluster) if process is not None else None
            if process is None or program is None:
                return None
            now = CoordinatorProgram("", process.program, process.python_variables).printed(
                PRINT_STORE
            )
            before = program.printed(PRINT_STORE)
    if not now or not before or int(now.split(".")[0]) <= int(before.split(".")[0]):
        return None
    return (
        f"the coordinator: dora {version} cannot read its store (version {now}, it reads "
        f"{before.split('.')[0]}.x); end it, and start dora {version} with --recreate-store"
    )
