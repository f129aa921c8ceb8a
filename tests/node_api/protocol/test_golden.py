"""The node protocol does not change without a new version."""

from __future__ import annotations

from pathlib import Path

from node_api.protocol.test_messages import MESSAGES
from support.golden import check_golden

from dora_node_api.protocol.frames import encode
from dora_node_api.protocol.launch_config import LaunchConfig
from dora_node_api.protocol.messages import PROTOCOL_VERSION, AddRoute, OperatorConfig
from dora_node_api.queue_policy import QueuePolicy
from dora_node_api.transport.shared.specs import QueueSpec

WAITS = QueuePolicy.BACKPRESSURE
GOLDEN = Path(__file__).parent / "golden" / f"node-protocol-{PROTOCOL_VERSION}.txt"


def test_frames_and_the_configuration_have_not_changed() -> None:
    route = AddRoute("out", QueueSpec(1, "a", "out", "b", "in", WAITS, 5, 4096, 1024))
    frames = [b"".join(piece.data for piece in encode(m, [3, 4])) for m in [*MESSAGES, route]]
    operator = OperatorConfig(id="op", python="op.py")
    config = LaunchConfig("/run/n", "camera", 3, "mark", False, (operator,))
    lines = [frame[:6].hex().encode() + b" " + frame[6:] for frame in frames]
    check_golden(GOLDEN, [*lines, config.to_text().encode()])
    assert LaunchConfig.from_text(config.to_text()) == config
