"""Fetching continues where it was interrupted."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pytest
from support.serving import served

from dora_cli.coordinator.recordings import FleetRecording
from dora_config.access import Endpoint
from dora_config.protocol.recorders import RecordingPlan
from dora_config.protocol.recordings import (
    CallRecorders,
    DescribeRecording,
    MachineReply,
    RecordedFile,
    RecorderReplies,
    RecordingDescribed,
    RecordingState,
)
from dora_config.retry import RetryPolicy
from dora_recordings.client.fetching import fetch
from dora_recordings.client.fleet import RecordingError

ID = "01a20e4b-f5a3-4858-99fe-d510d04b9561"
PLAN = RecordingPlan(recording=ID, dataflow_id="flow")
FILES = {"robot": {"robot-0.mcap": b"0123456789"}, "station": {"station-0.mcap": b"abcdef"}}


class Machines:
    """Machines that send four bytes at once and are lost after some requests."""

    def __init__(self, reads: int = 1000) -> None:
        self.reads: list[tuple[str, int]] = []
        outer, left = self, reads

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                nonlocal left
                _, _, _, _, daemon, name = unquote(self.path).split("/")
                first = self.headers.get("Range", "bytes=0-").removeprefix("bytes=")
                offset = int(first.rstrip("-"))
                self.close_connection = True
                if left == 0:
                    self.send_response(500)
                    self.send_header("Content-Type", "application/json")
                    self.end_headers()
                    self.wfile.write(b'{"error":"cut","code":"failed"}')
                    return
                left -= 1
                outer.reads.append((daemon, offset))
                content = FILES[daemon][name]
                self.send_response(206 if offset else 200)
                self.send_header("Content-Length", str(len(content) - offset))
                self.end_headers()
                self.wfile.write(content[offset : offset + 4])

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = False
        self.endpoint = Endpoint("127.0.0.1", self.server.server_port)

    def request(self, question: CallRecorders) -> RecorderReplies:
        (daemon,) = question.daemons
        assert isinstance(question.request, DescribeRecording)
        reply = MachineReply(daemon=daemon, reply=RecordingDescribed(plan=PLAN))
        return RecorderReplies(replies=(reply,))


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RetryPolicy, "delay", lambda policy, failures: 0.001)


def recording(*machines: str, phase: str = "ended") -> FleetRecording:
    found = FleetRecording(ID)
    for machine in machines:
        files = [RecordedFile(name=name, size=len(data)) for name, data in FILES[machine].items()]
        facts = {"recording": ID, "dataflow_id": "flow", "phase": phase, "files": files}
        facts["machines"] = tuple(FILES)
        found.states[machine] = RecordingState.model_validate(facts)
    return found


def run(client: Machines, found: FleetRecording, target: Path, **choices: bool) -> list[str]:
    """Fetch; return the machines whose files are complete and right."""
    allow = choices.get("allow_missing", False)
    with client.server, served(client.server):
        fetched = fetch(client, found, target, allow_missing=allow)  # type: ignore[arg-type]
    for one in fetched:
        assert {path.name: path.read_bytes() for path in one.files} == FILES[one.machine]
    return [one.machine for one in fetched]


@pytest.mark.parametrize("reads", range(5))
def test_a_fetch_that_was_cut_continues(tmp_path: Path, reads: int) -> None:
    target = tmp_path / "all.mcap"
    both = recording("robot", "station")
    first = Machines(reads)
    with pytest.raises(RecordingError, match="cut; run the command again"):
        run(first, both, target)
    second = Machines()
    assert run(second, both, target) == ["robot", "station"]
    assert len(first.reads) + len(second.reads) == 5
    assert not set(first.reads) & set(second.reads)


def test_a_machine_that_was_fetched_may_be_away(tmp_path: Path) -> None:
    target = tmp_path / "all.mcap"
    with pytest.raises(RecordingError, match=r"no recording of station, which may not be connec"):
        run(Machines(), recording("robot"), target)
    client = Machines()
    assert run(client, recording("station"), target) == ["robot", "station"]
    assert {daemon for daemon, _ in client.reads} == {"station"}


def fetched_from_robot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Fetch while the station is away, then record more on the robot; return the target."""
    target = tmp_path / "all.mcap"
    with pytest.raises(RecordingError, match="no recording of station"):
        run(Machines(), recording("robot"), target)
    monkeypatch.setitem(FILES, "robot", FILES["robot"] | {"robot-1.mcap": b"abcd"})
    return target


def test_files_recorded_since_the_last_attempt_are_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = fetched_from_robot(tmp_path, monkeypatch)
    client = Machines()
    assert run(client, recording("robot", "station"), target) == ["robot", "station"]
    assert [read for read in client.reads if read[0] == "robot"] == [("robot", 0)]


def test_a_machine_is_missing_after_its_second_fetch_was_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = fetched_from_robot(tmp_path, monkeypatch)
    with pytest.raises(RecordingError, match="cut; run the command again"):
        run(Machines(0), recording("robot", "station"), target)
    with pytest.raises(RecordingError, match="no recording of robot"):
        run(Machines(), recording("station"), target)


def test_a_machine_may_have_the_name_of_a_file_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FILES, "recording", {"recording-0.mcap": b"0123"})
    machines = ("recording", "robot", "station")
    assert run(Machines(), recording(*machines), tmp_path / "all.mcap") == list(machines)


def test_machines_may_be_left_out(tmp_path: Path) -> None:
    target = tmp_path / "all.mcap"
    assert run(Machines(), recording("robot"), target, allow_missing=True) == ["robot"]


def test_a_recording_in_progress_is_not_fetched(tmp_path: Path) -> None:
    found = recording("robot", phase="recording")
    with pytest.raises(RecordingError, match="robot still records; end it with `dora recording st"):
        run(Machines(), found, tmp_path / "all.mcap")


def test_parts_of_another_recording_are_kept(tmp_path: Path) -> None:
    parts = tmp_path / "all.mcap.parts"
    parts.mkdir()
    (parts / "recording").write_text("another")
    with pytest.raises(RecordingError, match="holds parts of recording another"):
        run(Machines(), recording("robot", "station"), tmp_path / "all.mcap")


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "all.mcap").touch()
    with pytest.raises(RecordingError, match="exists; choose another file"):
        run(Machines(), recording("robot"), tmp_path / "all.mcap")


@pytest.mark.parametrize("name", ["/x.mcap", "../../x.mcap", ".x.mcap", "x", "x.mcap\n"])
def test_a_machine_cannot_choose_another_folder_for_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(FILES, "robot", {"robot-0.mcap": b"0123", name: b"0123"})
    client = Machines()
    with pytest.raises(RecordingError, match=r"robot: .* is not a valid name of a recorded file"):
        run(client, recording("robot"), tmp_path / "all.mcap")
    assert client.reads == []


def test_a_machine_cannot_choose_another_folder_for_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FILES, "../../x", {"x-0.mcap": b"0123"})
    with pytest.raises(RecordingError, match=r"cannot store the recording of a machine: .*/x"):
        run(Machines(), recording("../../x"), tmp_path / "all.mcap")


def test_the_folder_of_the_target_must_exist(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="missing is not a folder; create it"):
        run(Machines(), recording("robot"), tmp_path / "missing" / "all.mcap")
