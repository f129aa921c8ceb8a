"""Messages of the control socket: encoding, decoding in pieces, and garbage."""

from __future__ import annotations

import gc
import json
import os
import socket
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from dora_node_api.errors import ControlClosed, ControlError
from dora_node_api.frozen import FrozenRecord, replace
from dora_node_api.protocol import frames, messages as control
from dora_node_api.protocol.control_socket import ControlSocket, bind_unix
from dora_node_api.protocol.frames import FrameDecoder, ReceivedFrame, encode
from dora_node_api.protocol.messages import InputConfig, NodeConfig

CONFIG = NodeConfig(
    dataflow_id="d",
    node_id="plot",
    inputs=(InputConfig(id="image", source="camera/image", queue_size=1, input_timeout=2.5),),
    outputs=("picture",),
    descriptor={"nodes": [{"id": "plot"}]},
    operators=(control.OperatorConfig(id="op", python="op.py"),),
    cycles=(("a", "b"),),
)
MESSAGES: list[control.Message] = [
    control.Hello(node_id="plot", incarnation=None, pid=3),
    control.AddSegment(number=1, size=4096),
    control.OpenSegment(request=1, incarnation=2, number=3),
    control.Log(level="warn", message="dröpped", fields={"n": 1}),
    control.CloseOutputs(outputs=("a", "b")),
    control.CloseOutputs(),
    control.StopDataflow(reason="operator a"),
    control.NodeLeaving(),
    control.HoldUpdates(reason="arm is moving"),
    control.ReportWaiting(text="a router"),
    control.ReportDetails(details={"nodes": ["/talker"], "topics": []}),
    control.SaveState(format="arrow", size=2**40),
    control.ExtensionRequest(request=2, action="store", namespace="n", key="k", value="AA=="),
    control.WatchOutput(node="camera", output="image"),
    control.Welcome(incarnation=7, config=CONFIG, board_size=8192),
    control.RestoreState(format="bytes", size=3),
    control.Refused(message="no"),
    control.Go(epoch_ns=2**62),
    control.StopNode(),
    control.RemoveRoute(queue=4),
    control.AddInput(
        input=InputConfig(id="t", source="dora/timer/hz/1", source_kind="timer", interval_ns=10**9)
    ),
    control.RemoveInput(input="t"),
    control.SendOutput(output="x", data=[1, None], metadata={"k": 1}),
    control.SetParam(key="k", value={"a": [1, None, 2.5]}),
    control.DeleteParam(key="k"),
    control.ReloadOperator(),
    control.SourceSegment(incarnation=3, number=0, size=4096),
    control.SegmentFd(request=1, size=4096),
    control.SegmentUnknown(request=1),
    control.ExtensionAnswer(request=2, problem="no"),
    control.ExtensionDropped(namespace="n", key="k"),
    control.RecordingSource(
        name="flow", working_dir="/w", machine_id=None, outputs=("a/b",), descriptor="nodes: []"
    ),
]


def taken(decoder: FrameDecoder) -> list[control.Message]:
    messages = []
    while (received := decoder.next_message()) is not None:
        messages.append(received.message)
    return messages


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_message_survives_the_wire(message: control.Message) -> None:
    decoder = FrameDecoder()
    for piece in encode(message):
        decoder.feed(piece.data)
    assert decoder.next_message() == ReceivedFrame(message)
    assert decoder.next_message() is None


def test_every_message_is_tried() -> None:
    kinds = {type(message) for message in MESSAGES} | {control.AddRoute, control.UnknownMessage}
    assert kinds == set(control.KINDS.values())


@given(st.data())
def test_frames_may_be_cut_anywhere(data: st.DataObject) -> None:
    stream = b"".join(piece.data for message in MESSAGES for piece in encode(message))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=20)))
    decoder = FrameDecoder()
    messages = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        decoder.feed(stream[start:end])
        messages += taken(decoder)
    assert messages == MESSAGES


@given(st.binary(max_size=200))
def test_garbage_is_a_control_error_and_nothing_else(garbage: bytes) -> None:
    decoder = FrameDecoder()
    decoder.feed(garbage)
    with suppress(ControlError):
        taken(decoder)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)
FIELD_NAMES = sorted({name for message in MESSAGES for name in vars(message)})


@given(
    st.sampled_from([m.kind for m in MESSAGES] + ["welcome", "new_kind"]),
    st.dictionaries(st.sampled_from(FIELD_NAMES), JSON),
)
def test_wrong_fields_are_a_control_error_and_nothing_else(kind: str, fields: Any) -> None:
    with suppress(ControlError):
        assert isinstance(
            frames.decode(json.dumps({**fields, "kind": kind}).encode()), FrozenRecord
        )


def test_half_of_a_surrogate_pair_is_replaced() -> None:
    decoder = FrameDecoder()
    (piece,) = encode(control.StopDataflow(reason="caf\udce9 \N{GRINNING FACE}"))
    decoder.feed(piece.data)
    message = control.StopDataflow(reason="caf? \N{GRINNING FACE}")
    assert decoder.next_message() == ReceivedFrame(message)


def test_unknown_queue_policy_is_refused() -> None:
    message = control.AddInput(input=InputConfig(id="t", source="a/b"))
    values = control.to_json(message)
    assert frames.decode(json.dumps(values).encode()) == message
    values["input"]["queue_policy"] = "drop_newest"
    expected = r"input\.queue_policy is 'drop_newest', expected drop_oldest or backpressure"
    with pytest.raises(ControlError, match=expected):
        frames.decode(json.dumps(values).encode())


def test_newer_minor_versions_are_understood() -> None:
    assert frames.decode(b'{"kind": "stop", "reason": "MANUAL", "new": 1}') == control.StopNode()
    assert frames.decode(b'{"kind": "dance"}') == control.UnknownMessage("dance")


def test_more_descriptors_arrive_than_fit_in_one_call() -> None:
    left, right = socket.socketpair()
    sender, receiver = ControlSocket(left), ControlSocket(right)
    read, write = os.pipe()
    try:
        sender.send(control.AddSegment(number=1, size=2), [read] * 450)
        sender.send(control.AddSegment(number=2, size=2), [write])
        first, second = receiver.receive(timeout=60), receiver.receive(timeout=60)
        assert first is not None
        assert second is not None
        assert len(first.descriptors) == 450
        os.write(second.descriptors[0], b"x")
        assert os.read(first.descriptors[449], 1) == b"x"
        assert not os.get_inheritable(first.descriptors[0])
        frames.close_all((*first.descriptors, *second.descriptors))
    finally:
        os.close(read)
        os.close(write)
        sender.close()
        receiver.close()


def test_end_of_file_comes_after_the_last_message() -> None:
    left, right = socket.socketpair()
    sender, receiver = ControlSocket(left), ControlSocket(right)
    assert receiver.receive(timeout=0) is None
    sender.send(control.NodeLeaving())
    sender.close()
    received = receiver.receive()
    assert received is not None
    assert received.message == control.NodeLeaving()
    with pytest.raises(ControlClosed):
        receiver.receive(timeout=60)
    receiver.close()


def test_a_dropped_socket_closes_without_a_warning() -> None:
    left, right = socket.socketpair()
    sender = ControlSocket(left)
    del left
    with right, warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        del sender
        gc.collect()
        assert right.recv(1) == b""
    assert warned == []


def test_descriptors_of_a_refused_message_are_closed() -> None:
    left, right = socket.socketpair()
    receiver = ControlSocket(right)
    read, write = os.pipe()
    body = b'{"kind": "segment", "number": "x"}'
    socket.send_fds(left, [frames.HEADER.pack(len(body), 1) + body], [write])
    os.close(write)
    with pytest.raises(ControlError):
        receiver.receive(timeout=60)
    receiver.close()
    assert os.read(read, 1) == b""  # the writing end is closed
    os.close(read)
    left.close()


@pytest.mark.parametrize("depth", [0, 30])
def test_socket_may_lie_deep(tmp_path: Path, depth: int) -> None:
    directory = tmp_path.joinpath(*["directory"] * depth)
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "n"
    listener = bind_unix(path)
    assert path.stat().st_mode & 0o777 == 0o600
    client = ControlSocket.connect(path)
    server = ControlSocket(listener.accept()[0])
    client.send(control.NodeLeaving())
    received = server.receive(timeout=60)
    assert received is not None
    assert received.message == control.NodeLeaving()
    for each in (client, server, listener):
        each.close()


def test_records_are_frozen_and_compare_by_value() -> None:
    go = control.Go(5)
    assert go == control.Go(epoch_ns=5)
    assert hash(go) == hash(control.Go(5))
    assert replace(go, epoch_ns=6) != go
    assert repr(go) == "Go(epoch_ns=5)"
    with pytest.raises(AttributeError, match="frozen"):
        go.epoch_ns = 7  # type: ignore[misc]
    with pytest.raises(TypeError, match="missing"):
        control.Go()  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        control.Go(1, epoch_ns=2)  # type: ignore[misc]
    match go:
        case control.Go(epoch):
            assert epoch == 5
