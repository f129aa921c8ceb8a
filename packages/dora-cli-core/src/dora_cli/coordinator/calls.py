"""Requests to runners through the coordinator."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from dora_cli import output

if TYPE_CHECKING:
    from dora_cli.coordinator.client import CoordinatorClient
    from dora_config.protocol.calls import NodeRequest
    from dora_config.protocol.control import Described
    from dora_config.protocol.runner import EdgeStatus, RunnerReply

T = TypeVar("T", bound="RunnerReply")


def call(
    client: CoordinatorClient,
    dataflow: str | None,
    node: str,
    request: NodeRequest,
    expected: type[T],
) -> T:
    """Send a request to the runner of ``node``; return its reply. Raises RequestFailed."""
    from dora_config.protocol.control import CallRunner

    message = CallRunner(dataflow=dataflow, node=node, request=request)
    (answer,) = client.request(message).replies
    assert isinstance(answer.reply, expected)
    return answer.reply


def describe(client: CoordinatorClient, dataflow: str | None) -> Described:
    """Return the dataflow as it was started."""
    from dora_config.protocol.control import DescribeDataflow

    return client.request(DescribeDataflow(dataflow=dataflow))


def edges(client: CoordinatorClient, uuid: str) -> list[EdgeStatus]:
    """Return the counters of all edges; warns of daemons that do not answer."""
    from dora_config.protocol.control import CallRunner
    from dora_config.protocol.runner import GetStatistics, Statistics

    message = CallRunner(dataflow=uuid, request=GetStatistics())
    answer = client.request(message)
    for problem in answer.problems:
        output.warn(problem)
    return [
        edge
        for each in answer.replies
        if isinstance(each.reply, Statistics)
        for edge in each.reply.edges
    ]
