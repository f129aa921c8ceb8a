"""The pytest plug-in: fixtures `dora_flow`, `dora_replay`, `dora_cluster`, option `--shuffle`."""

from __future__ import annotations

import types
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from dora_testing.cluster.cluster import InProcessCluster
    from dora_testing.flow import Flow
    from dora_testing.replaying import Check

CLUSTERS = pytest.StashKey[list["InProcessCluster"]]()
"""Clusters that a test has made."""
OWN = frozenset(
    f"dora_{name}" for name in ["testing", "config", "daemon", "coordinator", "recordings"]
)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("dora")
    group.addoption(
        "--shuffle",
        type=int,
        metavar="SEED",
        help="permute what happens at the same virtual time, to find races; seed of clusters",
    )


def pytest_report_header(config: pytest.Config) -> list[str]:
    seed = config.getoption("--shuffle")
    return [] if seed is None else [f"dora: events of the same time in the order of seed {seed}"]


class FlowMaker:
    """The fixture `dora_flow`: makes a `Flow` of a file beside the test."""

    def __init__(self, folder: Path, shuffle: int | None) -> None:
        self._folder = folder
        self._shuffle = shuffle

    def __call__(self, dataflow: Path | str, **settings: Any) -> Flow:
        """Load a dataflow file; a relative path counts from the folder of the test.

        The settings are those of `dora_testing.Flow`.
        """
        from dora_testing.flow import Flow

        return Flow(self._folder / dataflow, **{"shuffle": self._shuffle, **settings})


@pytest.fixture
def dora_flow(request: pytest.FixtureRequest) -> FlowMaker:
    """Make dataflows whose nodes get one event at a time, in virtual time."""
    return FlowMaker(request.path.parent, request.config.getoption("--shuffle"))


class RecordingChecker:
    """The fixture `dora_replay`: checks a recording beside the test."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, file: Path | str, **settings: Any) -> Check:
        """Run nodes with the events that they received in a recording, and compare what they send.

        Fails the test with the first difference of each node. Relative paths count from the folder
        of the test. The settings are those of `dora_testing.replaying.check_recording`: `run`,
        `compare`, `atol`, `rtol`, `ignore`, `dataflow` and more.
        """
        from dora_testing.replaying import check_recording

        check = check_recording([self._folder / file], folder=self._folder, **settings)
        if check.differences:
            pytest.fail("\n".join(check.lines()), pytrace=False)
        return check


@pytest.fixture
def dora_replay(request: pytest.FixtureRequest) -> RecordingChecker:
    """Compare what nodes send with a recording."""
    return RecordingChecker(request.path.parent)


class ClusterMaker:
    """The fixture `dora_cluster`: makes an `InProcessCluster`."""

    def __init__(self, item: pytest.Item, seed: int | None) -> None:
        self._item = item
        self._seed = seed or 0
        item.stash[CLUSTERS] = []

    def __call__(self, machines: Sequence[str], *, seed: int | None = None) -> InProcessCluster:
        """Make a cluster of these machines; a coordinator runs on the first one.

        `seed`: of the order of messages and of random faults, by default that of `--shuffle`, or 0.
        A failed test prints it. Relative paths of dataflows count from the folder of the test.
        """
        from dora_testing.cluster.cluster import InProcessCluster

        cluster = InProcessCluster(
            machines, seed=self._seed if seed is None else seed, folder=self._item.path.parent
        )
        self._item.stash[CLUSTERS].append(cluster)
        return cluster


@pytest.fixture
def dora_cluster(request: pytest.FixtureRequest) -> ClusterMaker:
    """Make clusters: coordinator, daemons and runners of several machines in one process."""
    return ClusterMaker(request.node, request.config.getoption("--shuffle"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    if call.excinfo is not None and not item.config.getoption("fulltrace"):
        failure = call.excinfo.value.with_traceback(_without_own_frames(call.excinfo))
        call.excinfo = pytest.ExceptionInfo.from_exception(failure)
    report = yield
    for cluster in item.stash.get(CLUSTERS, []) if report.failed else ():
        lines = [f"seed {cluster.seed} repeats this run", *cluster.faults]
        report.sections.append(("dora_cluster", "\n".join(lines)))
    return report


def _without_own_frames(failure: pytest.ExceptionInfo[BaseException]) -> types.TracebackType | None:
    """Return the traceback without the frames of dora, unless the fault is its own."""
    from dora_config.errors import DoraError

    entries = [entry._rawentry for entry in failure.traceback]
    names = [str(entry.tb_frame.f_globals.get("__name__")) for entry in entries]
    own = [name.partition(".")[0] in OWN for name in names]
    left: types.TracebackType | None = None
    if not any(own) or (own[-1] and not failure.errisinstance(DoraError)):
        return failure.tb
    for entry, hidden in zip(reversed(entries), reversed(own), strict=True):
        if not hidden:
            left = types.TracebackType(left, entry.tb_frame, entry.tb_lasti, entry.tb_lineno)
    return left or failure.tb
