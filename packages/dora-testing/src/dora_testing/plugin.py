"""The pytest plug-in: fixture `dora_flow`, option `--shuffle`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from dora_testing.flow import Flow


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("dora")
    group.addoption(
        "--shuffle",
        type=int,
        metavar="SEED",
        help="permute what happens at the same virtual time in dataflows, to find races",
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
