"""The format of requests and replies; a change needs a new version."""

from __future__ import annotations

import pytest

from dora_cluster.remote_program import protocol
from dora_cluster.remote_program.protocol import RemoteProblem

REQUEST = b'{"protocol": 1, "command": "daemon.tail", "arguments": {"name": "r", "lines": 2}}\n'
RESULT = b'{"protocol": 1, "result": {"lines": []}}\n'
PROBLEM = b'{"protocol": 1, "problem": "the daemon still runs"}\n'


def test_golden_messages() -> None:
    assert protocol.encode_request("daemon.tail", {"name": "r", "lines": 2}) == REQUEST
    assert protocol.decode_request(REQUEST) == ("daemon.tail", {"name": "r", "lines": 2})
    assert protocol.encode_result({"lines": []}) == RESULT
    assert protocol.decode_reply(RESULT) == {"lines": []}
    assert protocol.encode_problem("the daemon still runs") == PROBLEM
    with pytest.raises(RemoteProblem, match=r"^the daemon still runs$"):
        protocol.decode_reply(PROBLEM)


@pytest.mark.parametrize("line", [b"Welcome to robot", b"[1]", b"3", b'{"result": {}}', b""])
def test_other_output_is_not_a_reply(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"not a reply|Expecting value"):
        protocol.decode_reply(line)


def test_another_version_is_refused() -> None:
    sentence = "its protocol is 2, that of this version is 1"
    with pytest.raises(RemoteProblem, match=sentence):
        protocol.decode_reply(RESULT.replace(b"1", b"2"))
    with pytest.raises(RemoteProblem, match=sentence):
        protocol.decode_request(REQUEST.replace(b"1", b"2"))
