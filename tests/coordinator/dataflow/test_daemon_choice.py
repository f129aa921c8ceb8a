"""Placement: rules and messages of the guide, and properties."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, strategies as st

from dora_config.dataflow.resolved import ResolvedDataflow, ResolvedDeploy, ResolvedNode
from dora_config.protocol.daemon import Register
from dora_config.protocol.dataflow import DataflowSpec
from dora_config.protocol.envelope import ProgramVersion
from dora_coordinator.dataflow.daemon_choice import choose_daemon
from dora_coordinator.dataflow.placement import place
from dora_coordinator.state.commands import RequestRefused
from dora_coordinator.state.membership import Member


def connected_daemon(
    key: str, machine_id: str | None = None, labels: dict[str, str] | None = None
) -> Member:
    register = Register(
        party=ProgramVersion(program="daemon", release="1.0.0"),
        instance=key,
        incarnation="1",
        machine_id=machine_id,
        labels=labels or {},
        public_key="",
    )
    return Member(key, register, "10.0.0.1:40000", 0.0, 1, "")


ROBOT = connected_daemon("d1", "robot", {"arch": "arm64"})
GPU = connected_daemon("d2", "gpu-server", {"gpu": "true", "arch": "x86"})
SECOND_GPU = connected_daemon("d3", "gpu-2", {"gpu": "true", "arch": "arm64"})
UNNAMED = connected_daemon("d4")
ALL = [ROBOT, GPU, SECOND_GPU, UNNAMED]


def chosen(deploy: ResolvedDeploy, daemons: list[Member]) -> str:
    return choose_daemon(ResolvedNode(id="camera", deploy=deploy), daemons)


def sentence(deploy: ResolvedDeploy, daemons: list[Member]) -> str:
    with pytest.raises(RequestRefused) as caught:
        chosen(deploy, daemons)
    assert caught.value.code == "placement"
    before, _, text = str(caught.value).partition('node "camera": ')
    assert not before
    return text


@pytest.mark.parametrize(
    ("deploy", "daemon"),
    [
        (ResolvedDeploy(machine="robot"), ROBOT),
        (ResolvedDeploy(machine="robot", labels={"gpu": "true"}), ROBOT),
        (ResolvedDeploy(labels={"gpu": "true"}), GPU),
        (ResolvedDeploy(labels={"gpu": "true", "arch": "arm64"}), SECOND_GPU),
        (ResolvedDeploy(), UNNAMED),
        (ResolvedDeploy(working_dir="w", distribute="http"), UNNAMED),
    ],
)
def test_machine_then_labels_then_the_unnamed_daemon(
    deploy: ResolvedDeploy, daemon: Member
) -> None:
    assert chosen(deploy, ALL) == daemon.key


def test_no_daemon_of_that_machine() -> None:
    assert sentence(ResolvedDeploy(machine="robot"), []) == (
        'no matching daemon for machine id "robot"; no daemon is connected'
    )
    assert sentence(ResolvedDeploy(machine="robto"), [ROBOT, UNNAMED]) == (
        'no matching daemon for machine id "robto"; connected: "robot" {"arch": "arm64"}, '
        'an unnamed daemon; did you mean "robot"?'
    )


def test_no_daemon_with_those_labels() -> None:
    assert sentence(ResolvedDeploy(labels={"gpu": "true"}), []) == (
        'no daemon matches labels {"gpu": "true"}; no daemon is connected'
    )
    assert sentence(ResolvedDeploy(labels={"gpu": "true"}), [ROBOT]) == (
        'no daemon matches labels {"gpu": "true"}; connected: "robot" {"arch": "arm64"}; '
        "no daemon has any of these labels"
    )
    assert sentence(ResolvedDeploy(labels={"gpu": "true", "arch": "arm64"}), [ROBOT, GPU]).endswith(
        '; "robot" is the closest match, but has no gpu'
    )
    assert sentence(ResolvedDeploy(labels={"gpu": "true", "arch": "arm64"}), [GPU]).endswith(
        '; "gpu-server" is the closest match, but it has arch is "x86"'
    )


def test_no_unnamed_daemon() -> None:
    assert sentence(ResolvedDeploy(), []) == "no unnamed daemon connections; no daemon is connected"
    assert sentence(ResolvedDeploy(), [ROBOT]) == (
        'no unnamed daemon connections; connected: "robot" {"arch": "arm64"}; '
        "name one with `deploy: {machine: ...}`"
    )


def test_many_daemons_are_not_all_listed() -> None:
    daemons = [connected_daemon(f"d{n}", f"m{n}") for n in range(25)]
    assert sentence(ResolvedDeploy(), daemons).count('"m') == 10
    assert "and 15 more" in sentence(ResolvedDeploy(), daemons)


def flow(*deploys: ResolvedDeploy) -> DataflowSpec:
    nodes = tuple(ResolvedNode(id=f"n{n}", deploy=deploy) for n, deploy in enumerate(deploys))
    return DataflowSpec(resolved=ResolvedDataflow(nodes=nodes))


def test_a_whole_dataflow() -> None:
    plan = place(
        flow(ResolvedDeploy(machine="robot"), ResolvedDeploy(), ResolvedDeploy(machine="robot")),
        ALL,
    )
    assert plan.parts == {"d1": ("n0", "n2"), "d4": ("n1",)}


def test_every_node_without_a_daemon_is_reported() -> None:
    with pytest.raises(RequestRefused) as caught:
        place(
            flow(ResolvedDeploy(machine="x"), ResolvedDeploy(), ResolvedDeploy(labels={"a": "b"})),
            [ROBOT],
        )
    assert re.findall(r'^node "(\w+)": ', str(caught.value), re.M) == ["n0", "n1", "n2"]
    assert str(caught.value).count("\n") == 2


labels = st.dictionaries(st.sampled_from("abc"), st.sampled_from("xy"), max_size=3)
daemons = st.lists(
    st.builds(
        connected_daemon,
        key=st.uuids().map(str),
        machine_id=st.none() | st.sampled_from(["m1", "m2"]),
        labels=labels,
    ),
    max_size=5,
)
deploys = st.builds(
    ResolvedDeploy, machine=st.none() | st.sampled_from(["m1", "m2", "m3"]), labels=labels
)


@given(deploys, daemons)
def test_first_matching_daemon_is_chosen(deploy: ResolvedDeploy, connected: list[Member]) -> None:
    def fits(daemon: Member) -> bool:
        if deploy.machine is not None:
            return daemon.register.machine_id == deploy.machine
        if deploy.labels:
            return deploy.labels.items() <= daemon.register.labels.items()
        return daemon.register.machine_id is None

    fitting = [daemon for daemon in connected if fits(daemon)]
    if fitting:
        assert chosen(deploy, connected) == fitting[0].key
    else:
        with pytest.raises(RequestRefused):
            chosen(deploy, connected)


@given(st.lists(deploys, max_size=6), daemons)
def test_placing_is_all_or_nothing(wanted: list[ResolvedDeploy], connected: list[Member]) -> None:
    spec = flow(*wanted)
    ids = [node.id for node in spec.resolved.nodes]
    try:
        plan = place(spec, connected)
    except RequestRefused as error:
        unplaced = set(re.findall(r'^node "(\w+)": ', str(error), re.M))
        assert unplaced
    else:
        unplaced = set()
        assert [one.node for one in plan.explained.nodes] == ids
    for node in spec.resolved.nodes:
        if node.id in unplaced:
            with pytest.raises(RequestRefused):
                choose_daemon(node, connected)
        else:
            assert choose_daemon(node, connected) in [one.key for one in connected]
