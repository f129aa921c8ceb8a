"""Time limits of a start that waits for links."""

from __future__ import annotations

from support.simulation.fleet_simulation import pipeline

from dora_config.protocol.links import LinkReport, PeerReport
from dora_coordinator.links.edges import remote_edges
from dora_coordinator.links.links import Links
from dora_coordinator.links.wait import LinkWait
from dora_coordinator.settings import Settings

SETTINGS = Settings(link_timeout=10.0, slow_link_timeout=60.0)


def unlinked(*, slow: bool = False) -> Links:
    """Return the links of two machines that cannot reach each other."""
    spec = pipeline(camera="robot", plot="base")
    links = Links(remote_edges(spec.resolved, {"camera": "robot", "plot": "base"}))
    peer = PeerReport(machine="base", run_id=None, state="connecting", reason="timeout", slow=slow)
    links.reported("robot", LinkReport(run_id="r", peers=(peer,)))
    return links


def test_a_wait_ends_after_the_link_timeout() -> None:
    wait = LinkWait(SETTINGS)
    wait.begin(100.0)
    assert wait.next_check(100.0) == 105.0
    assert wait.check(unlinked(), 105.0, allow_unlinked=False)
    assert wait.waits_for is not None
    assert '"base" and "robot" have not reached each other yet' in wait.waits_for
    assert not wait.check(unlinked(), 110.0, allow_unlinked=False)
    assert wait.waits_for is None


def test_a_wait_over_a_slow_network_is_longer_unless_links_may_be_missing() -> None:
    wait = LinkWait(SETTINGS)
    wait.begin(100.0)
    assert wait.check(unlinked(slow=True), 159.0, allow_unlinked=False)
    assert not wait.check(unlinked(slow=True), 160.0, allow_unlinked=False)
    assert not wait.check(unlinked(slow=True), 110.0, allow_unlinked=True)


def test_a_timer_that_fires_early_does_not_prolong_the_wait() -> None:
    wait = LinkWait(SETTINGS)
    wait.begin(100.0)
    assert not wait.check(unlinked(), 109.995, allow_unlinked=False)
