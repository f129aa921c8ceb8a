"""All parts on this machine, as the other services of the daemon read them; pure."""

from __future__ import annotations

from dora_config.protocol import daemon as messages
from dora_config.protocol.topics import StreamTopics, TopicChunk
from dora_daemon.agent import commands as do
from dora_daemon.agent.parts.part import LocalPart
from dora_daemon.agent.records import PartRecord

KEPT_ENDED = 200
"""Records of ended parts that are kept, so that their logs can be found."""
REPORTED_ENDED = 50
"""Ended parts that are reported; a coordinator that has taken over may not have stored them."""


class PartTable(dict[str, LocalPart]):
    """The parts by dataflow id. Changed by `AgentState` only."""

    def live(self, dataflow_id: str, attempt: int | None = None) -> LocalPart | None:
        """Return a part that has not ended; None if it is of another attempt."""
        part = self.get(dataflow_id)
        if part is None or not part.live or attempt not in (None, part.record.attempt):
            return None
        return part

    def is_live(self, dataflow_id: str) -> bool:
        """Whether a part of this dataflow has not ended."""
        return self.live(dataflow_id) is not None

    def lost(self) -> list[LocalPart]:
        """Return the parts without processes that have not ended."""
        return [part for part in self.values() if part.lost is not None]

    def waiting(self) -> list[tuple[PartRecord, float]]:
        """Return the lost parts, and when each is started (see `LocalPart.due`)."""
        return [(part.record, part.due) for part in self.lost()]

    def reports(self) -> tuple[messages.PartReport, ...]:
        """Return the reports for a registration."""
        return tuple(part.report() for part in self.values() if not part.record.forgotten)

    def stored_ends(self) -> tuple[messages.PartReport, ...]:
        """Return the reports of the last parts whose end a coordinator has stored."""
        ended = [part for part in self.values() if part.record.end_stored]
        ended.sort(key=lambda part: part.record.ended_at)
        return tuple(part.report() for part in ended[-REPORTED_ENDED:])

    def records(self) -> tuple[PartRecord, ...]:
        """Return all records that the next daemon process needs."""
        return tuple(part.record for part in self.values())

    def record(self, dataflow_id: str) -> PartRecord | None:
        """Return the record of a part that has a runner."""
        part = self.live(dataflow_id)
        return None if part is None or part.lost is not None else part.record

    def read(
        self, request: messages.StreamLogs | StreamTopics
    ) -> PartRecord | messages.DaemonMessage:
        """Return the record of the part to read from, or the answer if there is nothing to read."""
        part = self.get(request.dataflow_id)
        if isinstance(request, StreamTopics):
            if part is None or not part.live or not part.record.runtime_dir:
                return TopicChunk(stream=request.stream, done=True)
        elif part is None:
            problem = "this machine no longer has logs of that dataflow"
            return messages.LogChunk(stream=request.stream, done=True, problem=problem)
        return part.record

    def prune(self) -> list[do.Command]:
        """Drop the oldest records of ended parts whose results the coordinator has stored."""
        records = [part.record for part in self.values() if part.record.forgotten]
        records.sort(key=lambda record: record.ended_at)
        dropped = [record.dataflow_id for record in records[: max(0, len(records) - KEPT_ENDED)]]
        for dataflow_id in dropped:
            del self[dataflow_id]
        return [do.DropPart(dataflow_id) for dataflow_id in dropped]
