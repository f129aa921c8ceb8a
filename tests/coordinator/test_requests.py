"""Dispatch of clients' requests, and queries."""

from __future__ import annotations

from support.simulation.fleets import running_dataflows

from dora_config.protocol.control import (
    Described,
    DescribeDataflow,
    ListNodes,
    NodeList,
    StopDataflow,
    WaitForEnd,
)

UNKNOWN = "01234567-89ab-cdef-0123-456789abcdef"


def test_an_unknown_dataflow_is_refused() -> None:
    fleet, _ = running_dataflows("a")
    for request in (
        StopDataflow(dataflow=UNKNOWN),
        WaitForEnd(dataflow=UNKNOWN),
        ListNodes(dataflow=UNKNOWN),
        DescribeDataflow(dataflow=UNKNOWN),
    ):
        failure = fleet.failures[fleet.request(request)]
        assert (failure.code, failure.message) == (
            "not_found",
            f"no dataflow with UUID {UNKNOWN}",
        )


def test_a_name_that_is_almost_right_is_suggested() -> None:
    fleet, _ = running_dataflows("camera", "planner")
    failure = fleet.failures[fleet.request(StopDataflow(dataflow="plannr"))]
    assert failure.message == ('no running dataflow with name "plannr"; did you mean "planner"?')


def test_an_ended_dataflow_can_be_described_but_not_stopped() -> None:
    fleet, daemon = running_dataflows("a")
    (dataflow_id,) = fleet.store
    fleet.request(StopDataflow())
    fleet.settle()
    ref = dataflow_id
    answer = fleet.answers[fleet.request(DescribeDataflow(dataflow=ref))]
    assert isinstance(answer, Described)
    assert answer.daemons == {"source": daemon.key, "sink": daemon.key}
    failure = fleet.failures[fleet.request(StopDataflow(dataflow=ref))]
    assert failure.message == f'dataflow "a" ({dataflow_id}) has ended already (Finished)'


def test_without_a_dataflow_the_nodes_of_live_ones_are_listed() -> None:
    fleet, _ = running_dataflows("a", "b")
    fleet.request(StopDataflow(dataflow="a"))
    fleet.settle()
    answer = fleet.answers[fleet.request(ListNodes())]
    assert isinstance(answer, NodeList)
    assert {row.dataflow_name for row in answer.nodes} == {"b"}
    answer = fleet.answers[fleet.request(ListNodes(dataflow="a"))]
    assert isinstance(answer, NodeList)
    assert [(row.node, row.status) for row in answer.nodes] == [
        ("source", "Finished"),
        ("sink", "Finished"),
    ]
