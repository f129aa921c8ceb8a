"""Sessions on which peers connect, without Zenoh."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import pytest

from dora_daemon.link.errors import CannotListen
from dora_daemon.link.io.session import LinkSession
from dora_daemon.link.peers.listener import PeerListener
from dora_daemon.link.protocol.messages import Configure

SECOND = 1_000_000_000


class FakeSession:
    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.closed = False

    def close(self) -> None:
        self.closed = True


class Network:
    """Sessions on the free ports of a machine."""

    def __init__(self) -> None:
        self.busy: set[int] = set()
        self.prepared: list[LinkSession] = []

    def listen(
        self, host: str, ports: Sequence[int], *_args: object, **_options: bool
    ) -> LinkSession:
        for port in ports:
            if port not in self.busy:
                self.busy.add(port)
                return cast(LinkSession, FakeSession(f"{host}:{port}"))
        raise CannotListen("no free port")

    def listener(
        self, *, ports: int = 10, port: int | None = None, credentials: Path | None = None
    ) -> PeerListener:
        config = Configure(
            dataflow_id="flow", network="net", machine="a", run_id="a-1", listen_host="127.0.0.1",
            first_port=7000, last_port=6999 + ports, port=port, credentials=None,
        )  # fmt: skip
        return PeerListener(config, credentials, self.prepared.append, self.listen)


@pytest.fixture
def network() -> Network:
    return Network()


def test_it_listens_on_both_halves_of_the_range(network: Network) -> None:
    listener = network.listener()
    assert (listener.endpoint, listener.low_latency_port, listener.sessions) == ("", 0, ())
    assert listener.ordinary_ports == [7000, 7001, 7002, 7003, 7004]
    listener.open(())
    assert listener.endpoint == "127.0.0.1:7000"
    assert listener.low_latency_port == 7009
    assert network.prepared == list(listener.sessions)
    listener.close()
    assert all(session.closed for session in listener.sessions)


def test_the_port_of_the_previous_link_is_tried_first(network: Network) -> None:
    listener = network.listener(port=7003)
    listener.open(())
    assert listener.endpoint == "127.0.0.1:7003"
    network.busy.remove(7003)
    listener.open(())
    assert listener.endpoint == "127.0.0.1:7003"
    listener.open(())
    assert listener.endpoint == "127.0.0.1:7000"


def test_without_a_port_for_low_latency_connections_only_that_session_is_missing(
    network: Network,
) -> None:
    network.busy |= {7005, 7006, 7007, 7008, 7009}
    listener = network.listener()
    listener.open(())
    assert (listener.low_latency_port, len(listener.sessions)) == (0, 1)
    narrow = network.listener(ports=4)
    assert narrow.ordinary_ports == [7000, 7001, 7002, 7003]
    narrow.open(())
    assert len(narrow.sessions) == 1


def test_a_range_without_a_free_port_is_refused(network: Network) -> None:
    network.busy |= set(range(7000, 7010))
    with pytest.raises(CannotListen):
        network.listener().open(())


def test_a_renewed_certificate_is_found_once(network: Network, tmp_path: Path) -> None:
    certificate = tmp_path / "cert.pem"
    certificate.touch()
    listener = network.listener(credentials=tmp_path)
    assert not listener.certificate_renewed(10 * SECOND)
    os.utime(certificate, ns=(1, 1))
    assert not listener.certificate_renewed(11 * SECOND), "it is not looked for at each tick"
    assert listener.certificate_renewed(20 * SECOND)
    assert not listener.certificate_renewed(30 * SECOND)
    certificate.unlink()
    assert not listener.certificate_renewed(40 * SECOND)
