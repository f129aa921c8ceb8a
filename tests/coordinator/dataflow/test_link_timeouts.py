"""Time limits of a start that waits for links."""

from __future__ import annotations

from support.simulation.fleets import pipeline

from dora_config.protocol.links import LinkReport, PeerReport
from dora_coordinator.dataflow.starting import may_wait
from dora_coordinator.links.edges import remote_edges
from dora_coordinator.links.links import Links
from dora_coordinator.settings import Settings

SETTINGS = Settings(link_timeout=10.0, slow_link_timeout=60.0)


def unlinked(*, slow: bool = False) -> Links:
    """Return the links of two machines that cannot reach each other."""
    spec = pipeline(camera="robot", plot="base")
    links = Links(remote_edges(spec.resolved, {"camera": "robot", "plot": "base"}))
    peer = PeerReport(machine="base", run_id=None, state="connecting", reason="timeout", slow=slow)
    links.reported("robot", LinkReport(run_id="r", peers=(peer,)))
    return links


def waits(links: Links, waited: float, *, allow_unlinked: bool = False) -> bool:
    return may_wait(links, waited, SETTINGS, allow_unlinked=allow_unlinked)


def test_a_wait_ends_after_the_link_timeout() -> None:
    links = unlinked()
    assert waits(links, 5.0)
    assert '"base" and "robot" have not reached each other yet' in links.pending()
    assert not waits(links, 10.0)


def test_a_wait_over_a_slow_network_is_longer_unless_links_may_be_missing() -> None:
    assert waits(unlinked(slow=True), 59.0)
    assert not waits(unlinked(slow=True), 60.0)
    assert not waits(unlinked(slow=True), 10.0, allow_unlinked=True)


def test_a_timer_that_fires_early_does_not_prolong_the_wait() -> None:
    assert not waits(unlinked(), 9.995)
