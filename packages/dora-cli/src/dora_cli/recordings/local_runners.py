"""Runners of this user on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dora_config import DoraError

if TYPE_CHECKING:
    from dora_daemon.process_tree.runtime_dir import FoundRunner


class NoSuchRunner(DoraError):
    """No dataflow of that name runs here, or more than one."""


def find_runner(dataflow: str) -> FoundRunner:
    """Return the runner of a dataflow by name, UUID or start of a UUID; raises NoSuchRunner."""
    from dora_daemon.process_tree.runtime_dir import list_runners, runtime_root

    alive = [runner for runner in list_runners(runtime_root()) if runner.alive]
    found = [one for one in alive if dataflow in (one.entry.name, one.entry.dataflow_id)]
    found = found or [one for one in alive if one.entry.dataflow_id.startswith(dataflow)]
    if len(found) == 1:
        return found[0]
    if found:
        ids = ", ".join(one.entry.dataflow_id for one in found)
        raise NoSuchRunner(f'{len(found)} running dataflows match "{dataflow}"; name one: {ids}')
    running = ", ".join(one.entry.name or one.entry.dataflow_id for one in alive) or "none"
    raise NoSuchRunner(
        f'dataflow "{dataflow}" does not run on this machine as this user; running: {running}'
    )
