"""Where links listen: what users write, and what is chosen for them."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from dora_config.dataflow import compression
from dora_config.dataflow.compression import CODECS, Compression
from dora_config.protocol.links import RemoteEdge
from dora_daemon.agent.linking import (
    LinkError,
    Listen,
    choose_host,
    codec_problem,
    own_address,
    parse_listen,
    plain_problem,
)
from dora_daemon.command import listen_options


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.0.0.7", Listen("10.0.0.7", 7450, 7549)),
        ("10.0.0.7:5456", Listen("10.0.0.7", 5456, 5555)),
        ("10.0.0.7:7000-7003", Listen("10.0.0.7", 7000, 7003)),
        ("10.0.0.7:65500", Listen("10.0.0.7", 65500, 65535)),
        ("fd00::7", Listen("fd00::7", 7450, 7549)),
        ("[fd00::7]:7000-7000", Listen("fd00::7", 7000, 7000)),
        ("[fd00::7]", Listen("fd00::7", 7450, 7549)),
    ],
)
def test_an_address_may_have_a_port_or_a_range(text: str, expected: Listen) -> None:
    assert parse_listen(text) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("robot.local", "expected an IP address"),
        ("", "expected an IP address"),
        ("0.0.0.0", "every address of this machine"),
        ("[::]:7450", "every address of this machine"),
        ("[fe80::7%eth0]:7450", "valid on this machine only"),
        ("10.0.0.7:0", "ports from 1 to 65535"),
        ("10.0.0.7:9-8", "ports from 1 to 65535"),
        ("10.0.0.7:70000", "ports from 1 to 65535"),
        ("10.0.0.7:a-b", "ports from 1 to 65535"),
        ("tcp/10.0.0.7:7450", "expected an IP address"),
    ],
)
def test_what_is_no_address_is_explained(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_listen(text)


@given(st.text(alphabet="0123456789.:-[]%abcdef", max_size=30))
def test_any_text_gives_an_address_or_an_error(text: str) -> None:
    try:
        found = parse_listen(text)
    except ValueError:
        return
    assert found.host
    assert 0 < found.first_port <= found.last_port < 65536


ROUTES = {"10.0.0.1": "10.0.0.7", "192.168.1.9": "192.168.1.7", "127.0.0.1": "127.0.0.1"}


@pytest.mark.parametrize(
    ("coordinator", "peers", "expected"),
    [
        ("10.0.0.1", ["192.168.1.9"], "10.0.0.7"),
        ("127.0.0.1", ["127.0.0.1", "192.168.1.9"], "192.168.1.7"),
        ("127.0.0.1", ["::ffff:127.0.0.1"], "127.0.0.1"),
        ("127.0.0.1", [], "127.0.0.1"),
        ("127.0.0.1", ["172.16.0.1"], "127.0.0.1"),
        ("172.16.0.1", ["172.16.0.2"], None),
    ],
)
def test_links_listen_on_the_address_that_leads_to_the_others(
    coordinator: str, peers: list[str], expected: str | None
) -> None:
    assert choose_host(coordinator, peers, ROUTES.get) == expected


def test_the_address_that_leads_to_this_machine_is_loopback() -> None:
    assert own_address("127.0.0.1") == "127.0.0.1"
    assert own_address("localhost") in ("127.0.0.1", "::1")
    assert own_address("no such host.") is None


def test_an_address_that_is_no_ip_fails_the_start_with_a_sentence() -> None:
    with pytest.raises(LinkError, match=r"'robot\.local'.*not an IP address"):
        choose_host("127.0.0.1", ["robot.local"], ROUTES.get)


@pytest.mark.parametrize("host", ["127.0.0.1", "10.0.0.7", "100.64.0.7", "fd00::7"])
def test_links_without_tls_are_allowed_on_private_addresses(host: str) -> None:
    assert plain_problem(host) is None


@pytest.mark.parametrize("host", ["8.8.8.8", "2001:4860:4860::8888"])
def test_links_without_tls_are_refused_on_public_addresses(host: str) -> None:
    problem = plain_problem(host)
    assert problem is not None
    assert host in problem
    assert "--i-know" in problem


def test_the_daemon_encrypts_unless_told_otherwise() -> None:
    assert not listen_options(Listen(), plain=False, public_ok=False).plain
    assert listen_options(Listen(), plain=True, public_ok=False).plain
    public = Listen("8.8.8.8")
    with pytest.raises(LinkError, match="--i-know"):
        listen_options(public, plain=True, public_ok=False)
    expected = Listen("8.8.8.8", plain=True, public_ok=True)
    assert listen_options(public, plain=True, public_ok=True) == expected


def test_a_codec_without_its_library_fails_the_start_with_the_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    edges = [
        RemoteEdge(
            source="camera", output="image", target=f"plot{codec}", input="image",
            source_machine="robot", target_machine="gpu", compress=Compression(codec=codec),
        )
        for codec in CODECS
    ]  # fmt: skip
    assert codec_problem(edges) is None
    monkeypatch.setattr(compression, "find_spec", lambda _: None)
    problem = codec_problem(edges)
    assert problem is not None
    assert "`compress` of input ploth264/image: h264 needs the library av" in problem
    assert "pip install" in problem
