"""Actions between two sessions of ours, over a router."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pytest
from ros2.routers import Router
from support.waiting import wait_until

from dora_ros2.connection import RosNode
from dora_ros2.errors import GoalError, NoReply
from dora_ros2.types import Types
from dora_ros2.zenoh.actions import (
    ANY_GOAL,
    ActionClient,
    ActionServer,
    CancelCode,
    GoalState,
    ServerGoal,
)
from dora_ros2.zenoh.tokens import Qos

FIBONACCI = Types().action("example_interfaces/action/Fibonacci")
SECONDS = 30


@dataclass
class Pair:
    client: ActionClient
    server: ActionServer
    goals: list[ServerGoal] = field(default_factory=list)
    statuses: list[Mapping[bytes, GoalState]] = field(default_factory=list)

    def goal(self, number: int = 1) -> ServerGoal:
        wait_until(lambda: len(self.goals) >= number, what="a goal")
        return self.goals[number - 1]


@contextmanager
def client_and_server(router: Router, **options: Any) -> Iterator[Pair]:
    with router.open() as one, router.open() as other:
        goals: list[ServerGoal] = []
        statuses: list[Mapping[bytes, GoalState]] = []
        server = ActionServer(RosNode(other, "server"), "fib", FIBONACCI, goals.append, **options)
        node = RosNode(one, "client")

        def on_status(payload: bytes, _: object) -> None:
            listed = FIBONACCI.status.decode(payload).to_pylist()[0]["status_list"]
            goal_ids = [bytes(status["goal_info"]["goal_id"]["uuid"]) for status in listed]
            states = [GoalState(status["status"]) for status in listed]
            statuses.append(dict(zip(goal_ids, states, strict=True)))

        latched = Qos(transient_local=True, depth=1)
        node.subscription("/fib/_action/status", FIBONACCI.status, on_status, latched)
        client = ActionClient(node, "/fib", FIBONACCI)
        assert client.wait_for_server(SECONDS)
        yield Pair(client, server, goals, statuses)


def send(pair: Pair, order: int = 1, **options: Any) -> tuple[bytes, Future[None]]:
    goal_id = uuid.uuid4().bytes
    return goal_id, pair.client.send_goal({"order": order}, goal_id=goal_id, **options)


def sequence(result: pa.StructArray) -> list[int]:
    found: list[int] = result.to_pylist()[0]["sequence"]
    return found


def test_a_goal_with_feedback_and_result(router: Router) -> None:
    with client_and_server(router) as pair:
        feedback: list[list[int]] = []
        goal_id, sent = send(
            pair, 3, on_feedback=lambda message: feedback.append(sequence(message))
        )
        goal = pair.goal()
        assert goal.goal.to_pylist() == [{"order": 3}]
        assert goal.state.name == "UNKNOWN"
        goal.accept()
        sent.result(SECONDS)
        assert goal_id == goal.id
        assert goal.state.name == "EXECUTING"
        waiting = [pair.client.result(goal_id), pair.client.result(goal_id, timeout=SECONDS)]
        for length in range(1, 4):
            goal.feedback({"sequence": [1] * length})
        wait_until(lambda: len(feedback) == 3, what="the feedback")
        assert feedback == [[1], [1, 1], [1, 1, 1]]
        goal.finish(
            GoalState.SUCCEEDED,
            pa.array([{"sequence": [0, 1, 1]}], FIBONACCI.part("Result").arrow_type),
        )
        for future in (*waiting, pair.client.result(goal_id)):
            assert future.result(SECONDS).state is GoalState.SUCCEEDED
            assert sequence(future.result().result) == [0, 1, 1]
        wait_until(
            lambda: pair.statuses and pair.statuses[-1] == {goal.id: GoalState.SUCCEEDED},
            what="the last status",
        )
        graph = pair.client._send.node.connection.graph
        assert graph.actions()["/fib"].types == ["example_interfaces/action/Fibonacci"]
        assert (graph.topics(), graph.services()) == ({}, {})


def test_a_rejected_goal(router: Router) -> None:
    with client_and_server(router) as pair:
        _, sent = send(pair, 3, on_feedback=lambda _: None)
        pair.goal().reject()
        with pytest.raises(GoalError, match="/fib: the server rejected the goal"):
            sent.result(SECONDS)
        assert not pair.client._on_feedback
        with pytest.raises(GoalError, match="was answered already"):
            pair.goal().accept()


def test_canceling(router: Router) -> None:
    with client_and_server(router, on_cancel=lambda goal: goal is not refused) as pair:
        sent = [send(pair, number) for number in range(3)]
        by_order: dict[int, ServerGoal] = {}
        wait_until(lambda: len(pair.goals) == 3, what="the goals")
        refused: ServerGoal | None = None
        for goal in pair.goals:
            by_order[goal.goal.to_pylist()[0]["order"]] = goal
            goal.accept()
        refused = by_order[2]
        for _, accepted in sent:
            accepted.result(SECONDS)

        def cancel(number: int) -> CancelCode:
            return pair.client.cancel(sent[number][0]).result(SECONDS)

        assert cancel(0) is CancelCode.ACCEPTED
        assert by_order[0].state is GoalState.CANCELING
        assert cancel(0) is CancelCode.ACCEPTED
        assert cancel(2) is CancelCode.REJECTED
        assert pair.client.cancel(ANY_GOAL).result(SECONDS) is CancelCode.ACCEPTED
        assert [by_order[number].state for number in range(3)] == [
            GoalState.CANCELING,
            GoalState.CANCELING,
            GoalState.EXECUTING,
        ]
        by_order[0].finish(GoalState.CANCELED)
        by_order[1].finish(GoalState.SUCCEEDED, {"sequence": [1]})
        assert pair.client.result(sent[0][0]).result(SECONDS).state is GoalState.CANCELED
        assert pair.client.result(sent[1][0]).result(SECONDS).state is GoalState.SUCCEEDED
        assert cancel(0) is CancelCode.GOAL_ENDED
        assert pair.client.cancel(bytes([7] * 16)).result(SECONDS) is CancelCode.UNKNOWN_GOAL


def test_an_expired_result_is_an_error(router: Router) -> None:
    with client_and_server(router, keep_results=0) as pair:
        goal_id, sent = send(pair)
        pair.goal().accept()
        sent.result(SECONDS)
        pair.goal().finish(GoalState.ABORTED)
        with pytest.raises(NoReply, match="the server has no goal"):
            pair.client.result(goal_id).result(SECONDS)
        assert pair.goal().state is GoalState.UNKNOWN
        with pytest.raises(GoalError, match="is unknown"):
            pair.goal().finish(GoalState.SUCCEEDED)


def test_a_status_that_is_not_an_end_is_an_error(router: Router) -> None:
    with client_and_server(router) as pair:
        goal_id, sent = send(pair)
        pair.goal().accept()
        sent.result(SECONDS)
        response = FIBONACCI.get_result.response
        pair.server.goals.goals[goal_id].state = GoalState.ABORTED
        pair.server.goals.goals[goal_id].result = response.encode({"status": 9})
        with pytest.raises(NoReply, match="a result with status 9, which is not an end"):
            pair.client.result(goal_id).result(SECONDS)


def test_a_server_that_ends_fails_what_waits(router: Router) -> None:
    with client_and_server(router) as pair:
        goal_id, first = send(pair)
        pair.goal().accept()
        first.result(SECONDS)
        waiting: list[Future[Any]] = [pair.client.result(goal_id), send(pair)[1]]
        pair.goal(2)
        wait_until(lambda: pair.goal().waiting, what="the request for a result")
        pair.server.close()
        for future in waiting:
            with pytest.raises(NoReply, match="ended before it replied"):
                future.result(SECONDS)


def test_requests_that_cannot_be_read_get_an_error(
    router: Router, caplog: pytest.LogCaptureFixture
) -> None:
    with client_and_server(router) as pair:
        for client in (pair.client._send, pair.client._get, pair.client._cancel):
            with pytest.raises(NoReply, match="replied with an error"):
                client.call(b"\x00\x01\x00\x00\x01").result(SECONDS)
            with pytest.raises(NoReply, match="replied with an error"):
                client.call(b"").result(SECONDS)
        assert pair.goals == []
    warnings = [record.getMessage() for record in caplog.records]
    assert len(warnings) == 3
    assert all("received a request that cannot be read" in one for one in warnings)
