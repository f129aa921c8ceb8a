"""Starts recordings: on this machine, or on the machines of a cluster."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from dora_cli import output
from dora_cli.coordinator.client import CoordinatorClient
from dora_cli.coordinator.errors import CoordinatorUnavailable
from dora_cli.coordinator.recordings import FleetRecording, collect, new_plan
from dora_cli.errors import CommandFailed
from dora_config.access import Endpoint
from dora_config.protocol.control import ListDataflows
from dora_config.protocol.dataflow import DataflowSpec
from dora_config.protocol.recorders import RecordingLimits, RecordingPlan, RecordingRequest
from dora_config.protocol.recordings import (
    ListRecordings,
    RecorderRequest,
    RecordPart,
    StopRecording,
)
from dora_recordings.client.fleet import (
    SHORT_ID,
    RecordingError,
    call,
    find,
    write_report,
)

INTERVAL = 1.0
"""Seconds between two requests for the states of the machines."""
FINISH_SECONDS = 15.0
"""Seconds for machines to finish their files after a stop."""


class FleetSession:
    """Follows one recording; reconnects when the coordinator is interrupted."""

    def __init__(self, endpoint: Endpoint, plan: RecordingPlan) -> None:
        self._endpoint = endpoint
        self.plan = plan
        self._seen: FleetRecording = FleetRecording(plan.recording)
        """The last report of each machine."""
        self._warned: set[str] = set()
        self._unreachable: Mapping[str, str] = {}

    def begin(self, client: CoordinatorClient) -> None:
        """Start recorders on all machines; raises RecordingError if none records."""
        self._update(client, RecordPart(plan=self.plan))
        for problem in self._unreachable.values():
            output.warn(f"outputs of a machine are not recorded until it answers; {problem}")
        if not self._seen.states:
            raise RecordingError("no machine records: " + "; ".join(self._unreachable.values()))
        machines = ", ".join(sorted(self._seen.states))
        output.remark(f"recording {self.plan.recording[:SHORT_ID]} on {machines}")

    def follow(self, client: CoordinatorClient) -> None:
        """Return when the dataflow has ended or all machines have; Ctrl-C stops the recording."""
        try:
            self._follow(client)
        except KeyboardInterrupt:
            output.remark("finishing the files")
            try:
                self._over_new_connection(self._stop)
            except KeyboardInterrupt:
                self._warn_of_recorders()
                raise

    def _follow(self, client: CoordinatorClient) -> None:
        lost = False
        while True:
            try:
                if self._watch(client):
                    return
                if lost:
                    output.remark("connected to the coordinator again")
                lost = False
            except CoordinatorUnavailable as error:
                if not lost:
                    output.warn(f"{error}; the machines keep recording")
                lost = True
            time.sleep(INTERVAL)

    def _watch(self, client: CoordinatorClient) -> bool:
        """Return whether the recording has ended; raises CoordinatorUnavailable."""
        rows = client.request(ListDataflows()).dataflows
        mine = [row for row in rows if row.uuid == self.plan.dataflow_id]
        if mine and mine[0].ended_ago is not None:
            self._finish(client)
            return True
        self._update(client, RecordPart(plan=self.plan))
        return self._ended(may_resume=bool(mine))

    def _stop(self, client: CoordinatorClient) -> None:
        self._update(client, StopRecording(recording=self.plan.recording))
        self._finish(client)

    def _over_new_connection(self, work: Callable[[CoordinatorClient], None]) -> None:
        """Do ``work``; without a coordinator, warn that the machines may still record."""
        try:
            with CoordinatorClient(self._endpoint) as client:
                work(client)
        except CoordinatorUnavailable as error:
            self._unreachable = {name: f"{name}: {error}" for name in self._seen.states}
            self._warn_of_recorders()

    def _warn_of_recorders(self) -> None:
        short = self.plan.recording[:SHORT_ID]
        output.warn(f"machines may still record; end it with `dora recording stop {short}`")

    def finish(self) -> None:
        """Wait until all connected machines have finished their files."""
        self._over_new_connection(self._finish)

    def _finish(self, client: CoordinatorClient) -> None:
        deadline = time.monotonic() + FINISH_SECONDS
        while True:
            self._update(client, ListRecordings())
            if self._stopped_everywhere() or time.monotonic() > deadline:
                return
            time.sleep(INTERVAL / 10)

    def _update(self, client: CoordinatorClient, request: RecorderRequest) -> None:
        """Send a request to all machines and note their states."""
        replies = call(client, request, self.plan.machines)
        self._unreachable = replies.problems
        for recording in collect(replies):
            if recording.recording == self.plan.recording:
                self._seen.states.update(recording.states)
        for problem in self._seen.problems:
            if problem not in self._warned:
                self._warned.add(problem)
                output.warn(problem)

    def _ended(self, *, may_resume: bool) -> bool:
        """Return whether every machine that answers has finished its files.

        ``may_resume``: the coordinator has the dataflow, whose nodes may be started again.
        """
        states = self._seen.states
        return all(
            state.phase == "ended" and not (may_resume and state.resumes)
            for machine, state in states.items()
            if machine not in self._unreachable
        ) and bool(states.keys() - self._unreachable.keys())

    def _stopped_everywhere(self) -> bool:
        return all(
            state.phase != "recording"
            for machine, state in self._seen.states.items()
            if machine not in self._unreachable
        )

    def report(self) -> bool:
        """Print what was recorded; return whether all of it was."""
        seen = self._seen
        problems = seen.problems
        for machine, state in seen.states.items():
            if machine in self._unreachable:
                problems.append(f"{self._unreachable[machine]}: it may still record")
            elif state.phase != "ended":
                problems.append(f"{machine}: the recorder has not ended; see `dora recording list`")
        for machine in sorted(seen.machines - seen.states.keys()):
            problems.append(f"{machine}: has not recorded")
        return write_report(seen.recorded, seen.lost, problems=problems)


@dataclass(frozen=True, slots=True)
class RecordSettings:
    """Options of `dora record`."""

    limits: RecordingLimits
    target: Path | None = None
    patterns: tuple[str, ...] = ()

    def check_target(self, plan: RecordingPlan) -> None:
        """Raise RecordingError if the recording could not be fetched into the target."""
        from dora_recordings.client.fetching import check_target

        if self.target is not None:
            check_target(self.target, plan.recording)

    def request(self, dataflow_id: str, *, count_on: bool) -> RecordingRequest:
        """Return the request for the recorder of a runner on this machine.

        ``count_on``: when writing fails, count the lost messages until the dataflow ends.
        """

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
        return new_plan(
            spec, self.patterns, self.limits, dataflow_id=dataflow_id, machines=machines
        )


def session_of_started(client: CoordinatorClient, uuid: str, plan: RecordingPlan) -> FleetSession:
    """Return a session for a dataflow that was started with a recording."""
    from dora_cli.coordinator.calls import describe

    machines = tuple(sorted(set(describe(client, uuid).daemons.values())))
    known = plan.model_copy(update={"dataflow_id": uuid, "machines": machines})
    return FleetSession(client.endpoint, known)


def session_of(client: CoordinatorClient, dataflow: str, settings: RecordSettings) -> FleetSession:
    """Return a session that records a running dataflow on all its machines."""
    from dora_cli.coordinator.calls import describe

    described = describe(client, _uuid(client, dataflow))
    machines = tuple(sorted(set(described.daemons.values())))
    plan = settings.plan(described.spec, described.uuid, machines)
    return FleetSession(client.endpoint, plan)


def _uuid(client: CoordinatorClient, text: str) -> str:
    """Return the UUID of the running dataflow that begins with ``text``, else the text."""

    rows = client.request(ListDataflows()).dataflows
    running = [row for row in rows if row.status not in ("Finished", "Failed")]
    found = [row.uuid for row in running if row.uuid.startswith(text)]
    return found[0] if len(found) == 1 and text not in [row.name for row in running] else text


def conclude(
    connect: Callable[[], CoordinatorClient], session: FleetSession, target: Path | None
) -> None:
    """Fetch into ``target`` if given, else print how; raises CommandFailed for lost messages.

    Without a coordinator, the last report of each machine is printed.
    """
    from dora_recordings.client.fetching import fetch, merge_fetched

    fetching = f"fetch it with: dora recording fetch {session.plan.recording[:SHORT_ID]} -o"
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
