"""Operations on a cluster whose coordinator accepts no connection now."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
from support.refusing_coordinator import refusing

from dora_cli.coordinator.errors import CoordinatorBusy, CoordinatorLost
from dora_cluster.coordinator import queries
from dora_cluster.operations import doctor
from dora_cluster.operations.steps import Findings
from dora_config.cluster.models import Cluster, Coordinator, Machine


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_coordinator_is_asked_again_and_never_replaced(status: int) -> None:
    with refusing(status) as cluster:
        assert queries.fetch_report(cluster) is None
        assert queries.wait_for_daemons(cluster, ["robot"], within=0.0) == {}
        for ask in (
            queries.report_if_running,
            queries.require_coordinator,
            queries.release_of,
            queries.fetch_nodes,
            queries.destroy,
        ):
            with pytest.raises(CoordinatorBusy, match=r"\(too many connections\): try again in a"):
                ask(cluster)


def test_a_key_is_not_silently_left_as_it_is() -> None:
    with refusing(503) as cluster, pytest.raises(CoordinatorBusy):
        queries.allow_new_key(cluster, "robot", busy_timeout=0.0)
    queries.allow_new_key(cluster, "robot", busy_timeout=0.0)  # it no longer listens


@pytest.mark.parametrize("status", [403, 500])
def test_other_statuses_end_a_wait(status: int) -> None:
    with refusing(status) as cluster, pytest.raises(CoordinatorLost, match=f"status {status}: too"):
        queries.fetch_report(cluster)


def test_a_wait_continues_after_a_coordinator_that_ended_during_a_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Ending(nullcontext[Any]):
        def request(self, *_: object, **__: object) -> None:
            raise CoordinatorLost("the coordinator closed the connection")

    ending = Ending()
    ending.enter_result = ending
    cluster = Cluster(
        coordinator=Coordinator(addr="10.0.0.1"), machines=(Machine(id="robot", host="10.0.0.9"),)
    )
    monkeypatch.setattr(queries, "open_client", lambda _: ending)
    assert queries.fetch_report(cluster) is None
    with pytest.raises(CoordinatorLost):
        queries.report_if_running(cluster)


@pytest.mark.parametrize(
    ("status", "result"),
    [
        (401, "refuses this account"),
        (429, "accepts no connection now"),
        (500, "gives no report"),
        (503, "accepts no connection now"),
    ],
)
def test_the_doctor_distinguishes_why(status: int, result: str) -> None:
    findings = Findings()
    with refusing(status) as cluster:
        report, line = doctor._report_of_coordinator(cluster, findings)
        assert report is None
        assert line == f"Coordinator: {queries.endpoint_of(cluster)}, {result}"
    assert len(findings.problems) == 1
