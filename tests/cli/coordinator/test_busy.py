"""Commands in front of a coordinator that accepts no connection now."""

from __future__ import annotations

import pytest
from support.command_line import Dora
from support.refusing_coordinator import refusing

from dora_cli.coordinator.client import CoordinatorClient
from dora_cli.coordinator.errors import CoordinatorUnreachable
from dora_config.access import Endpoint
from dora_config.protocol.control import ClusterStatus


def test_the_page_of_another_server_is_not_printed() -> None:
    with (
        refusing(503, "text/html", "<html>\nunavailable") as cluster,
        CoordinatorClient(Endpoint("127.0.0.1", cluster.coordinator.port)) as client,
    ):
        for use in (lambda: client.request(ClusterStatus()), lambda: client.streams):
            with pytest.raises(CoordinatorUnreachable, match=r"no coordinator listens at .* 503$"):
                use()


@pytest.mark.parametrize(
    "words",
    [
        ("up",),
        ("why",),
        ("logs", "--all-nodes"),
    ],
    ids=lambda words: words[0],
)
def test_no_command_goes_on_as_if_no_coordinator_ran(dora: Dora, words: tuple[str, ...]) -> None:
    with refusing(503) as cluster:
        shown = dora(*words, "--coordinator-port", str(cluster.coordinator.port))
    assert shown.code != 0
    assert "(too many connections): try again in a minute" in shown.err
