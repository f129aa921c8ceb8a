"""Control messages: codec, compatibility of versions, refusal of invalid messages."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any, get_args

import pytest
from hypothesis import given, strategies as st

from dora_config.errors import RemoteProtocolError
from dora_config.protocol import control, daemon
from dora_config.protocol.control import CLIENT_CODEC, SERVER_CODEC
from dora_config.protocol.daemon import TO_COORDINATOR, TO_DAEMON
from dora_config.protocol.envelope import (
    Codec,
    ProgramVersion,
    ProtocolVersion,
    UnknownKind,
    clean_lines,
    clean_text,
    version_problem,
)

UNIONS: list[tuple[Codec[Any], Any]] = [
    (CLIENT_CODEC, control.ClientFrame),
    (SERVER_CODEC, control.ServerFrame),
    (TO_COORDINATOR, daemon.DaemonMessage),
    (TO_DAEMON, daemon.CoordinatorMessage),
]


def kinds(union: Any) -> list[str]:
    return [model.model_fields["kind"].default for model in get_args(get_args(union)[0])]


@pytest.mark.parametrize(
    "union", [union for _, union in UNIONS] + [control.ControlRequest, control.ControlAnswer]
)
def test_kinds_of_a_union_are_unique(union: Any) -> None:
    assert len(set(kinds(union))) == len(kinds(union))


def test_messages_survive_encoding() -> None:
    ask = control.ClientRequest(id=3, request=control.StopDataflow(grace=1.5, force=True))
    assert CLIENT_CODEC.decode(CLIENT_CODEC.encode(ask)) == ask
    stop = daemon.StopPart(dataflow_id="01a20e4b-f5a3-4858-99fe-d510d04b9561", grace=2.0)
    assert TO_DAEMON.decode(TO_DAEMON.encode(stop)) == stop


def test_fields_of_a_newer_version_are_ignored() -> None:
    text = json.dumps({"kind": "cancel", "id": 4, "because": {"of": "a newer version"}})
    assert CLIENT_CODEC.decode(text) == control.Cancel(id=4)


def test_the_wrong_field_is_named() -> None:
    with pytest.raises(RemoteProtocolError, match=r"to the coordinator: cancel\.id"):
        CLIENT_CODEC.decode('{"kind": "cancel", "id": "four"}')


@given(st.text() | st.binary())
def test_garbage_raises_only_protocol_errors(text: str | bytes) -> None:
    for codec, _ in UNIONS:
        with pytest.raises(RemoteProtocolError):
            codec.decode(text)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@given(st.data())
def test_wrong_fields_raise_only_protocol_errors(data: st.DataObject) -> None:
    codec, union = data.draw(st.sampled_from(UNIONS))
    body = data.draw(st.dictionaries(st.text(max_size=8), json_values, max_size=4))
    body["kind"] = data.draw(st.sampled_from(kinds(union)))
    with suppress(RemoteProtocolError):
        codec.decode(json.dumps(body))


UUID = "01a20e4b-f5a3-4858-99fe-d510d04b9561"


def sample(load: str = "", edge: str = "") -> str:
    one = f'{{"source": "a/b", "target": "c/d", "policy": "drop_oldest", "bound": 1{edge}}}'
    parts = f'{{"{UUID}": {{"kind": "statistics", "edges": [{one}]}}}}'
    return answered(f'{{"kind": "machine_sample", "load": {{{load}}}, "parts": {parts}}}')


def answered(reply: str) -> str:
    return f'{{"kind": "answered", "call": "1", "reply": {reply}}}'


def recorded(values: str) -> str:
    state = f'{{"recording": "{UUID}", "dataflow_id": "", "phase": "ended", {values}}}'
    return answered(f'{{"kind": "recording_states", "recordings": [{state}]}}')


HUGE = 10**400


@pytest.mark.parametrize(
    "text",
    [
        sample(f'"memory_bytes": {HUGE}'),
        sample('"cpu_seconds": NaN'),
        sample('"cpu_seconds": 1e999'),
        sample(edge=f', "bytes_received": {HUGE}'),
        sample(edge=', "latency_us": {"p50": NaN}'),
        sample(edge=f', "latency_counts": [[{HUGE}, 1]]'),
        recorded('"started": 1e300'),
        recorded('"started": -1'),
        recorded(f'"files": [{{"name": "r.mcap", "size": {HUGE}}}]'),
        recorded(f'"lost": {{"a/b": {HUGE}}}'),
        '{"kind": "heartbeat", "time": 1e308}',
    ],
)
def test_numbers_that_no_machine_has_are_refused(text: str) -> None:
    """Clients calculate with the numbers of all machines at once."""
    with pytest.raises(RemoteProtocolError):
        TO_COORDINATOR.decode(text)


def test_large_counters_are_accepted() -> None:
    largest = 2**64 - 1
    TO_COORDINATOR.decode(sample(f'"memory_bytes": {largest}', f', "sent": {largest}'))
    TO_COORDINATOR.decode(recorded(f'"started": 1.7e9, "lost": {{"a/b": {largest}}}'))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "a\x1b[2J"),
        ("name", ""),
        ("workspace", "../x"),
        ("workspace", ".."),
        ("workspace", "a/b"),
        ("resolved", {"nodes": [{"id": "../x", "path": "x.py"}]}),
        ("resolved", {"nodes": [{"id": "a/b", "path": "x.py"}]}),
    ],
)
def test_fields_used_in_file_names_or_logs_are_checked(field: str, value: object) -> None:
    spec = {"resolved": {"nodes": []}, field: value}
    request = {"kind": "start", "spec": spec}
    with pytest.raises(RemoteProtocolError, match=field):
        CLIENT_CODEC.decode(json.dumps({"kind": "request", "id": 1, "request": request}))


@pytest.mark.parametrize("text", ["d", "../x", "", "01a20e4b-f5a3-4858-99fe-d510d04b9561/.."])
def test_dataflow_id_must_be_a_uuid(text: str) -> None:
    with pytest.raises(RemoteProtocolError, match="dataflow_id"):
        TO_DAEMON.decode(json.dumps({"kind": "stop_part", "dataflow_id": text}))


def party(name: str, major: int, minor: int = 0) -> ProgramVersion:
    return ProgramVersion(
        program=name, release="1.2", protocol=ProtocolVersion(major=major, minor=minor)
    )


def test_neighbouring_minor_versions_are_compatible() -> None:
    for ours, theirs in ((1, 1), (1, 2), (2, 1)):
        assert version_problem(party("coordinator", 1, ours), party("daemon", 1, theirs)) is None


def test_distant_minor_versions_are_incompatible() -> None:
    problem = version_problem(party("coordinator", 1, 0), party("daemon", 1, 2))
    assert problem == (
        "daemon 1.2 (protocol 1.2) and coordinator 1.2 (protocol 1.0) are incompatible; "
        "upgrade the coordinator"
    )


def test_unknown_kinds_are_distinguished_from_garbage() -> None:
    for codec, _ in UNIONS:
        with pytest.raises(UnknownKind):
            codec.decode('{"kind": "of_tomorrow", "field": 1}')
        with pytest.raises(RemoteProtocolError) as refused:
            codec.decode("{}")
        assert not isinstance(refused.value, UnknownKind)


def test_other_major_versions_are_incompatible() -> None:
    for ours, theirs in ((1, 2), (2, 1)):
        problem = version_problem(party("coordinator", ours), party("daemon", theirs))
        assert problem is not None
        assert f"coordinator 1.2 (protocol {ours}.0)" in problem
        assert f"daemon 1.2 (protocol {theirs}.0)" in problem
        assert problem.endswith(f"upgrade the {'coordinator' if ours == 1 else 'daemon'}")


def test_control_characters_are_escaped() -> None:
    assert clean_lines("a\n\x1bb\n") == "a\n  \\x1bb"
    assert clean_text("a\x1b[2Jb\nc") == "a\\x1b[2Jb\\nc"
    assert clean_text("x" * 50, limit=10) == "x" * 10 + "..."
