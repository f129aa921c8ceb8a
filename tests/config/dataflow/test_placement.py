"""Placement: rules and messages of the guide, and properties."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from dora_config.dataflow.placement import ConnectedDaemon, UnplacedNodes, choose_daemon, place
from dora_config.dataflow.resolved import ResolvedDataflow, ResolvedDeploy, ResolvedNode
from dora_config.errors import PlacementError

ROBOT = ConnectedDaemon("d1", "robot", {"arch": "arm64"})
GPU = ConnectedDaemon("d2", "gpu-server", {"gpu": "true", "arch": "x86"})
SECOND_GPU = ConnectedDaemon("d3", "gpu-2", {"gpu": "true", "arch": "arm64"})
UNNAMED = ConnectedDaemon("d4")
ALL = [ROBOT, GPU, SECOND_GPU, UNNAMED]


def sentence(deploy: ResolvedDeploy, daemons: list[ConnectedDaemon]) -> str:
    with pytest.raises(PlacementError) as caught:
        choose_daemon("camera", deploy, daemons)
    assert caught.value.node == "camera"
    return str(caught.value).removeprefix('node "camera": ')


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
    deploy: ResolvedDeploy, daemon: ConnectedDaemon
) -> None:
    assert choose_daemon("n", deploy, ALL) is daemon


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
    daemons = [ConnectedDaemon(f"d{n}", f"m{n}") for n in range(25)]
    assert sentence(ResolvedDeploy(), daemons).count('"m') == 10
    assert "and 15 more" in sentence(ResolvedDeploy(), daemons)


def flow(*deploys: ResolvedDeploy) -> ResolvedDataflow:
    return ResolvedDataflow(
        nodes=tuple(ResolvedNode(id=f"n{n}", deploy=deploy) for n, deploy in enumerate(deploys))
    )


def test_a_whole_dataflow() -> None:
    by_node = place(
        flow(ResolvedDeploy(machine="robot"), ResolvedDeploy(), ResolvedDeploy(machine="robot")),
        ALL,
    )
    assert by_node == {"n0": "d1", "n1": "d4", "n2": "d1"}


def test_every_node_without_a_daemon_is_reported() -> None:
    with pytest.raises(UnplacedNodes) as caught:
        place(
            flow(ResolvedDeploy(machine="x"), ResolvedDeploy(), ResolvedDeploy(labels={"a": "b"})),
            [ROBOT],
        )
    assert [error.node for error in caught.value.errors] == ["n0", "n1", "n2"]
    assert str(caught.value).count("\n") == 2


labels = st.dictionaries(st.sampled_from("abc"), st.sampled_from("xy"), max_size=3)
daemons = st.lists(
    st.builds(
        ConnectedDaemon,
        daemon_id=st.uuids().map(str),
        machine_id=st.none() | st.sampled_from(["m1", "m2"]),
        labels=labels,
    ),
    max_size=5,
)
deploys = st.builds(
    ResolvedDeploy, machine=st.none() | st.sampled_from(["m1", "m2", "m3"]), labels=labels
)


@given(deploys, daemons)
def test_first_matching_daemon_is_chosen(
    deploy: ResolvedDeploy, connected: list[ConnectedDaemon]
) -> None:
    def fits(daemon: ConnectedDaemon) -> bool:
        if deploy.machine is not None:
            return daemon.machine_id == deploy.machine
        if deploy.labels:
            return deploy.labels.items() <= daemon.labels.items()
        return daemon.machine_id is None

    fitting = [daemon for daemon in connected if fits(daemon)]
    if fitting:
        assert choose_daemon("n", deploy, connected) is fitting[0]
    else:
        with pytest.raises(PlacementError):
            choose_daemon("n", deploy, connected)


@given(st.lists(deploys, max_size=6), daemons)
def test_placing_is_all_or_nothing(
    wanted: list[ResolvedDeploy], connected: list[ConnectedDaemon]
) -> None:
    dataflow = flow(*wanted)
    try:
        by_node = place(dataflow, connected)
    except UnplacedNodes as error:
        unplaced = {one.node for one in error.errors}
    else:
        unplaced = set()
        assert list(by_node) == [node.id for node in dataflow.nodes]
    for node in dataflow.nodes:
        if node.id in unplaced:
            with pytest.raises(PlacementError):
                choose_daemon(node.id, node.deploy, connected)
        else:
            assert choose_daemon(node.id, node.deploy, connected) in connected
