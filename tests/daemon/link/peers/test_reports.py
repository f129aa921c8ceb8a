"""What is reported to the runner, and when."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

from dora_config.protocol.links import PeerReport
from dora_daemon.link.peers.reports import Reports
from dora_daemon.link.peers.stream_table import StreamTable
from dora_daemon.link.protocol.messages import PeerChanged, StreamCount, StreamCounts, ToRunner

SECOND = 1_000_000_000


def count(node: str, messages: int) -> StreamCount:
    return StreamCount(machine="b", node=node, output="o", direction="out", messages=messages)


@dataclass
class FakeTable:
    lost: int = 0
    now: list[StreamCount] = field(default_factory=list)

    def counts(self) -> list[StreamCount]:
        return self.now

    @property
    def table(self) -> StreamTable:
        return cast(StreamTable, self)


def test_a_peer_is_reported_when_it_changes() -> None:
    sent: list[ToRunner] = []
    reports = Reports(sent.append)
    lost = PeerReport(machine="b", state="lost", run_id="r")
    back = PeerReport(machine="b", state="connected", run_id="r")
    for report in (lost, lost, back, back, lost):
        reports.peer(report)
    assert sent == [PeerChanged(peer=one) for one in (lost, back, lost)]


def test_changed_counters_are_reported_once_a_second() -> None:
    sent: list[ToRunner] = []
    reports, table = Reports(sent.append), FakeTable(now=[count("n", 1), count("m", 1)])
    reports.counts(table.table, 10 * SECOND)
    table.now = [count("n", 2), count("m", 1)]
    reports.counts(table.table, 10 * SECOND + SECOND // 2)
    assert sent == [StreamCounts(streams=(count("n", 1), count("m", 1)))]
    reports.counts(table.table, 11 * SECOND)
    assert sent[1:] == [StreamCounts(streams=(count("n", 2),))]
    reports.counts(table.table, 13 * SECOND)
    assert len(sent) == 2


def test_a_loss_and_the_end_are_reported_at_once() -> None:
    sent: list[ToRunner] = []
    reports, table = Reports(sent.append), FakeTable(now=[count("n", 1)])
    reports.counts(table.table, 10 * SECOND)
    table.now, table.lost = [count("n", 2)], 1
    reports.counts(table.table, 10 * SECOND + 1)
    assert len(sent) == 2
    table.now = [count("n", 3)]
    reports.counts(table.table, 0)
    assert len(sent) == 3
