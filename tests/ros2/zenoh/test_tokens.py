"""Tokens, GIDs and attachments; the captured ones are from a real Humble."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, strategies as st
from ros2.zenoh.test_keys import QOS

from dora_ros2.errors import MalformedMessage
from dora_ros2.zenoh.tokens import (
    Attachment,
    EndpointToken,
    Kind,
    NodeToken,
    Qos,
    decode_attachment,
    gid,
    parse_token,
)

CAPTURED = (
    "@ros2_lv/0/9ca0f8facf84ffb1e6bfa4f2500889f0/0/3/MP/%/%/_ros2cli_712/%chatter/"
    "std_msgs::msg::dds_::String_/TypeHashNotSupported/:1:,1:,:,:,,"
)
NAMES = st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True)
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(lambda parts: "/" + "/".join(parts))
NODES = st.builds(
    NodeToken,
    st.integers(0, 232),
    st.from_regex(r"[1-9a-f][0-9a-f]{1,31}", fullmatch=True),
    st.integers(0, 999).map(str),
    st.just("/") | PATHS,
    NAMES,
    st.just("") | PATHS,
)
ENDPOINTS = st.builds(
    EndpointToken,
    NODES,
    st.integers(0, 999).map(str),
    st.sampled_from([Kind.PUBLISHER, Kind.SUBSCRIPTION, Kind.SERVER, Kind.CLIENT]),
    PATHS,
    NAMES.map(lambda name: f"pkg::msg::dds_::{name}_"),
    st.just("TypeHashNotSupported"),
    QOS,
)


def test_a_captured_token() -> None:
    token = parse_token(CAPTURED)
    assert isinstance(token, EndpointToken)
    assert (token.name, token.type, token.node.full_name) == (
        "/chatter",
        "std_msgs/msg/String",
        "/_ros2cli_712",
    )
    assert token.humble
    assert token.qos == Qos(transient_local=True, depth=1)
    assert str(token) == CAPTURED
    assert gid(CAPTURED).hex() == "f07168d3856ce9f689254cbed6252151"


@given(NODES | ENDPOINTS)
def test_tokens_are_read_as_they_were_written(token: NodeToken | EndpointToken) -> None:
    assert parse_token(str(token)) == token


@given(ENDPOINTS, st.lists(NAMES, max_size=3))
def test_more_parts_are_accepted(token: EndpointToken, more: list[str]) -> None:
    assert parse_token("/".join([str(token), *more])) == token


@given(st.text() | st.lists(st.text(max_size=4), max_size=15).map("/".join))
def test_other_texts_are_refused_or_read(text: str) -> None:
    for candidate in (text, f"@ros2_lv/{text}", f"@ros2_lv/0/1/2/3/MP/{text}"):
        try:
            parse_token(candidate)
        except ValueError:
            continue


@pytest.mark.parametrize("cut", range(1, 13))
def test_a_cut_token_is_refused(cut: int) -> None:
    with pytest.raises(ValueError):
        parse_token("/".join(CAPTURED.split("/")[:cut]))


@given(
    st.integers(-(2**63), 2**63 - 1), st.integers(0, 2**63 - 1), st.binary(min_size=16, max_size=16)
)
def test_attachments(sequence: int, time_ns: int, sender: bytes) -> None:
    attachment = Attachment(sequence, time_ns, sender)
    data = attachment.encode()
    assert len(data) == 33
    assert decode_attachment(data) == attachment
    old = (
        b"\x0fsequence_number"
        + struct.pack("<q", sequence)
        + b"\x10source_timestamp"
        + struct.pack("<q", time_ns)
        + b"\x0asource_gid\x10"
        + sender
    )
    assert decode_attachment(old) == Attachment(sequence, time_ns, sender, old=True)


@given(st.binary(max_size=100))
def test_other_bytes_are_no_attachment(data: bytes) -> None:
    if len(data) != 33 or data[16] != 16:
        with pytest.raises(MalformedMessage, match=f"{len(data)} bytes are not an attachment"):
            decode_attachment(data)
