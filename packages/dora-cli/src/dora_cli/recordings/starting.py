"""Starts recordings: on this machine, or on the machines of a cluster."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dora_cli import output
from dora_cli.errors import CommandFailed

if TYPE_CHECKING:
    from dora_cli.coordinator.client import Client
    from dora_cli.recordings.fleet_session import FleetSession
    from dora_config.protocol.dataflow import DataflowSpec
    from dora_config.protocol.recorders import (
        RecordingLimits,
        RecordingPlan,
        RecordingRequest,
    )


@dataclass(frozen=True, slots=True)
class RecordSettings:
    """Options of `dora record`."""

    limits: RecordingLimits
    target: Path | None = None
    patterns: tuple[str, ...] = ()

    def check_target(self, plan: RecordingPlan) -> None:
        """Raise RecordingError if the recording could not be fetched into the target."""
        from dora_cli.recordings.fetching import check_target

        if self.target is not None:
            check_target(self.target, plan.recording)

    def request(self, dataflow_id: str, *, count_on: bool) -> RecordingRequest:
        """Return the request for the recorder of a runner on this machine.

        ``count_on``: when writing fails, count the lost messages until the dataflow ends.
        """
        from dora_config.protocol.recorders import RecordingRequest

        file = self.target or Path(time.strftime("recording_%Y%m%d_%H%M%S.mcap"))
        return RecordingRequest(
            dataflow_id=dataflow_id,
            patterns=self.patterns,
            path=str(file.absolute()),
            limits=self.limits,
            count_on=count_on,
        )

    def plan(
        self, spec: DataflowSpec, dataflow_id: str = "", machines: tuple[str, ...] = ()
    ) -> RecordingPlan:
        """Return the plan of a new recording on the machines of a cluster."""
        from dora_config.dataflow.expand import expand_dataflow
        from dora_config.protocol.recorders import RecordingPlan

        return RecordingPlan(
            recording=str(uuid.uuid4()),
            dataflow_id=dataflow_id,
            name=spec.name,
            patterns=self.patterns,
            limits=self.limits,
            dataflow=expand_dataflow(spec.resolved),
            working_dir=spec.origin.directory,
            machines=machines,
            started=time.time(),
        )


def session_of_started(client: Client, uuid: str, plan: RecordingPlan) -> FleetSession:
    """Return a session for a dataflow that was started with a recording."""
    from dora_cli.coordinator.calls import describe
    from dora_cli.recordings.fleet_session import FleetSession

    machines = tuple(sorted(set(describe(client, uuid).daemons.values())))
    known = plan.model_copy(update={"dataflow_id": uuid, "machines": machines})
    return FleetSession(client.endpoint, known)


def session_of(client: Client, dataflow: str, settings: RecordSettings) -> FleetSession:
    """Return a session that records a running dataflow on all its machines."""
    from dora_cli.coordinator.calls import describe
    from dora_cli.recordings.fleet_session import FleetSession

    described = describe(client, _uuid(client, dataflow))
    machines = tuple(sorted(set(described.daemons.values())))
    plan = settings.plan(described.spec, described.uuid, machines)
    return FleetSession(client.endpoint, plan)


def _uuid(client: Client, text: str) -> str:
    """Return the UUID of the running dataflow that begins with ``text``, else the text."""
    from dora_config.protocol.control import DataflowList, ListDataflows

    rows = client.request(ListDataflows(), DataflowList).dataflows
    running = [row for row in rows if row.status not in ("Finished", "Failed")]
    found = [row.uuid for row in running if row.uuid.startswith(text)]
    return found[0] if len(found) == 1 and text not in [row.name for row in running] else text


def conclude(connect: Callable[[], Client], session: FleetSession, target: Path | None) -> None:
    """Fetch into ``target`` if given, else print how; raises CommandFailed for lost messages.

    Without a coordinator, the last report of each machine is printed.
    """
    from dora_cli.coordinator.errors import CoordinatorUnavailable
    from dora_cli.recordings.fetching import fetch, merge_fetched
    from dora_cli.recordings.fleet import SHORT, find

    fetching = f"fetch it with: dora record fetch {session.plan.recording[:SHORT]} -o"
    if target is None:
        output.write(f"{fetching} FILE")
        complete = session.report()
    else:
        try:
            client = connect()
        except CoordinatorUnavailable:
            output.write(f"{fetching} {target}")
            session.report()
            raise
        with client:
            found = find(client, session.plan.recording)
            fetched = fetch(client, found, target, allow_missing=False)
        complete, _ = merge_fetched(fetched, target)
    if not complete:
        raise CommandFailed
