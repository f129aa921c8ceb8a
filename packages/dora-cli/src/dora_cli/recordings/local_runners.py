"""Runners of this user on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dora_config import DoraError

if TYPE_CHECKING:
    from dora_daemon.process_tree.runner_index import IndexEntry


class NoSuchRunner(DoraError):
    """No dataflow of that name runs here, or more than one."""


def find_runner(dataflow: str) -> tuple[Path, IndexEntry]:
    """Return directory and index of a dataflow's runner; raises NoSuchRunner.

    ``dataflow`` is a name, a UUID or the start of a UUID.
    """
    from dora_daemon.process_tree.runtime_dir import living_runners, runtime_root

    alive = living_runners(runtime_root())
    found = [one for one in alive if dataflow in (one[1].name, one[1].dataflow_id)]
    found = found or [one for one in alive if one[1].dataflow_id.startswith(dataflow)]
    if len(found) == 1:
        return found[0]
    if found:
        ids = ", ".join(entry.dataflow_id for _, entry in found)
        raise NoSuchRunner(f'{len(found)} running dataflows match "{dataflow}"; name one: {ids}')
    running = ", ".join(entry.name or entry.dataflow_id for _, entry in alive) or "none"
    raise NoSuchRunner(
        f'dataflow "{dataflow}" does not run on this machine as this user; running: {running}'
    )
