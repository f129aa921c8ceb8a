"""State of a peer as reported to the runner."""

from __future__ import annotations

from dora_daemon.link.protocol.status import PeerStatus


def test_the_reason_of_a_peer_without_session_is_what_was_tried() -> None:
    status = PeerStatus()
    assert status.state(None, confirmed=False) == ("connecting", "no connection has been tried yet")
    status.dialing()
    assert status.state(None, confirmed=False) == ("connecting", "no answer yet")
    status.trouble = "b:1: refused"
    status.dialing()
    assert status.state(None, confirmed=False) == ("connecting", "b:1: refused")


def test_a_peer_is_proven_once_confirmed_and_in_agreement() -> None:
    status = PeerStatus()
    silent = "b:1 is connected, but the link there does not answer"
    assert status.state("b:1", confirmed=False) == ("connecting", silent)
    status.difference = "n/o is not expected there"
    assert status.state("b:1", confirmed=True) == ("connecting", "n/o is not expected there")
    status.difference = None
    assert status.state("b:1", confirmed=True) == ("connected", "")


def test_a_proven_peer_is_lost_without_session_until_it_runs_anew() -> None:
    status = PeerStatus()
    status.state("b:1", confirmed=True)
    status.trouble = "the connection was closed"
    assert status.state(None, confirmed=False) == ("lost", "the connection was closed")
    status.left = True
    assert status.state(None, confirmed=False) == ("left", "")
    status.new_run()
    assert status.state(None, confirmed=False) == ("connecting", "the connection was closed")
