"""`dora record`, `dora replay` and `dora recording` with real dataflows."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pytest
from mcap.reader import make_reader
from support.dora import RunningDora, run_dora, running_dora
from support.waiting import wait_until
from support.workspace import Workspace

from dora_daemon.process_tree.runtime_dir import living_runners, runtime_root
from dora_recordings.arrow_messages import decode
from dora_recordings.reading import Recording

pytestmark = pytest.mark.integration

SENDER = """
    from datetime import datetime, timezone

    import pyarrow as pa
    from dora import Node

    node = Node()
    for number in range(300):
        node.send_output("number", pa.array([number]), {"n": number, "x": 0.1, "names": ["a", "b"]})
        if number % 100 == 0:
            moment = datetime(2026, 1, 2, 3, 4, 5, 678901, timezone.utc)
            node.send_output("text", pa.array(["a", None]), {"at": moment})
    node.send_output("text", pa.array([1.5]))
"""
READER = """
    from dora import Node

    seen = [event["value"][0].as_py() for event in Node() if event["type"] == "INPUT"]
    print("in order", seen == list(range(300)))
"""
TICKER = """
    import pyarrow as pa
    from dora import Node

    node = Node()
    for number, event in enumerate(node):
        if event["type"] == "INPUT":
            node.send_output("count", pa.array([number]))
"""
TICKING = {
    "nodes": [
        {
            "id": "ticker",
            "path": "ticker.py",
            "inputs": {"tick": "dora/timer/millis/5"},
            "outputs": ["count"],
        }
    ],
}


def sending(workspace: Workspace) -> Path:
    workspace.node("sender", SENDER)
    workspace.node("reader", READER)
    inputs = {"number": {"source": "sender/number", "queue_size": 400}}
    sender = {"id": "sender", "path": "sender.py", "outputs": ["number", "text", "unused"]}
    reader = {"id": "reader", "path": "reader.py", "inputs": inputs}
    return workspace.dataflow({"nodes": [sender, reader]})


@contextmanager
def ticking(workspace: Workspace) -> Iterator[tuple[RunningDora, str]]:
    """Run a dataflow; yield the command and the UUID."""
    workspace.node("ticker", TICKER)
    path = workspace.dataflow(TICKING)
    with running_dora("run", path, cwd=workspace.path) as running:
        ((_, entry),) = wait_until(
            lambda: living_runners(runtime_root()), what="the runner's index"
        )
        yield running, entry.dataflow_id
        running.interrupt()
        running.wait().succeeded()


def contents(path: Path) -> dict[str, list[tuple[str, pa.Array, bytes]]]:
    """Return type, value and metadata of the messages of each output, in order."""
    found: dict[str, list[tuple[str, pa.Array, bytes]]] = {}
    for message in Recording(path).messages():
        value, metadata = decode(message.schema, message.data)
        found.setdefault(message.topic, []).append((message.type_name, value, metadata))
    return found


def info(path: Path) -> Any:
    return json.loads(run_dora("recording", "info", path, "--format", "json").succeeded().stdout)


def test_a_replay_that_is_recorded_yields_the_same_messages(workspace: Workspace) -> None:
    path = sending(workspace)
    first, second = workspace.path / "first.mcap", workspace.path / "second.mcap"
    done = run_dora("record", path, "-o", first, cwd=workspace.path).succeeded()
    assert "sender/number  300       0" in done.stdout
    assert "sender/unused  0         0" in done.stdout
    assert "in order True" in done.stdout
    with first.open("rb") as file:
        assert sum(1 for _ in make_reader(file).iter_messages()) == 304
    replay = workspace.path / "replay.yml"
    run_dora("replay", first, "--output-yaml", replay, cwd=workspace.path).succeeded()
    again = run_dora("record", replay, "-o", second, cwd=workspace.path).succeeded()
    assert "in order True" in again.stdout
    assert contents(second) == contents(first)
    assert len(contents(first)["sender/number"]) == 300
    assert {one for one, *_ in contents(first)["sender/text"]} == {"string", "double"}


def test_a_replay_as_fast_as_possible_drops_nothing(workspace: Workspace) -> None:
    path = sending(workspace)
    file = workspace.path / "r.mcap"
    run_dora("record", path, "-o", file, cwd=workspace.path).succeeded()
    done = run_dora("replay", file, "--speed", "0", cwd=workspace.path).succeeded()
    assert "in order True" in done.stdout
    none = run_dora("replay", file, "--replace", "reader", cwd=workspace.path).exited(1)
    assert 'node "reader" cannot be replayed; recorded nodes: sender' in none.stderr


RELAY = """
    import pyarrow as pa
    from dora import Node

    node = Node()
    for event in node:
        if event["type"] == "INPUT" and event["id"] == "number":
            node.send_output("number", event["value"])
            for _ in range(3):
                node.send_output("again", event["value"])
"""
SLOW = """
    import time

    from dora import Node

    seen = 0
    for event in Node():
        if event["type"] == "INPUT":
            seen += 1
            time.sleep(0.005)
    print("slow reader saw", seen)
"""


def test_a_replay_as_fast_as_possible_drops_nothing_between_live_nodes(
    workspace: Workspace,
) -> None:
    sending(workspace)
    workspace.node("relay", RELAY)
    workspace.node("reader", SLOW)
    sender = {"id": "sender", "path": "sender.py", "outputs": ["number", "text", "unused"]}
    outputs = ["number", "again"]
    relay: dict[str, Any] = {"id": "relay", "path": "relay.py", "outputs": outputs}
    relay["inputs"] = {"number": "sender/number"}
    reader = {"id": "reader", "path": "reader.py", "inputs": {"number": "relay/number"}}
    log = {"id": "log", "path": "reader.py", "inputs": {"lines": "dora/logs"}}
    path = workspace.dataflow({"nodes": [sender, relay, reader, log]})
    file = workspace.path / "r.mcap"
    words = ("-o", file, "--topics", "sender/*")
    run_dora("record", path, *words, cwd=workspace.path).succeeded()
    done = run_dora("replay", file, "--speed", "0", cwd=workspace.path).succeeded()
    assert "reader: slow reader saw 300" in done.stdout
    relay["inputs"]["own"] = {"source": "relay/again", "queue_size": 1}
    path = workspace.dataflow({"nodes": [sender, relay, reader]})
    file.unlink()
    run_dora("record", path, *words, "--stop-after", "1s", cwd=workspace.path).succeeded()
    replay = ("replay", file, "--speed", "0", "--stop-after", "20s")
    done = run_dora(*replay, cwd=workspace.path).exited(1)
    assert "messages were dropped:" in done.stderr
    assert "of relay/again -> relay/own" in done.stderr
    assert "relay/number" not in done.stderr.partition("messages were dropped:")[2]


def test_a_replay_that_is_stopped_has_dropped_nothing(workspace: Workspace) -> None:
    path = sending(workspace)
    file = workspace.path / "r.mcap"
    run_dora("record", path, "-o", file, cwd=workspace.path).succeeded()
    workspace.node("reader", SLOW)
    replay = ("replay", file, "--speed", "0", "--loop", "--replace", "sender", "--stop-after", "2s")
    run_dora(*replay, cwd=workspace.path).succeeded()


def test_a_part_of_a_recording_is_replayed(workspace: Workspace) -> None:
    path = sending(workspace)
    file = workspace.path / "r.mcap"
    run_dora("record", path, "-o", file, cwd=workspace.path).succeeded()
    times = [one.log_time for one in Recording(file).messages(["sender/number"])]
    first = next(Recording(file).messages()).log_time
    begin, end = (
        f"{((times[index - 1] + times[index]) / 2 - first) / 1e9:.9f}s" for index in (100, 200)
    )
    workspace.node("reader", READER.replace("range(300)", "range(100, 200)"))
    words = ("--from", begin, "--to", end, "--replace", "sender")
    done = run_dora("replay", file, "--speed", "0", *words, cwd=workspace.path).succeeded()
    assert "in order True" in done.stdout
    wrong = run_dora("replay", file, "--from", "2s", "--to", "1s").exited(2)
    assert "--from must be before --to" in wrong.stderr


def test_a_replay_begins_again_until_ctrl_c(workspace: Workspace) -> None:
    path = sending(workspace)
    file = workspace.path / "r.mcap"
    run_dora("record", path, "-o", file, cwd=workspace.path).succeeded()
    workspace.node(
        "reader",
        """
        from dora import Node

        begun = expected = 0
        for event in Node():
            if event["type"] == "INPUT":
                number = event["value"][0].as_py()
                assert number == expected % 300, (number, expected)
                expected += 1
                if number == 299:
                    print("replayed", expected // 300, flush=True)
        """,
    )
    with running_dora("replay", file, "--loop", "--speed", "0", cwd=workspace.path) as replay:
        replay.wait_for("replayed 3")
        replay.interrupt()
        replay.wait().succeeded()


def test_topics_are_chosen_by_pattern(workspace: Workspace) -> None:
    path = sending(workspace)
    file = workspace.path / "r.mcap"
    run_dora("record", path, "-o", file, "--topics", "*/te?t", cwd=workspace.path).succeeded()
    assert list(contents(file)) == ["sender/text"]
    exists = run_dora("record", path, "-o", file, cwd=workspace.path).exited(1)
    assert f"cannot record: {file}: File exists" in exists.stderr
    wrong = run_dora("record", path, "-o", "x.mcap", "--topics", "no/*", cwd=workspace.path)
    assert "its outputs: sender/number, sender/text" in wrong.exited(1).stderr


def test_a_running_dataflow_is_recorded_until_ctrl_c(workspace: Workspace) -> None:
    file = workspace.path / "r.mcap"
    with ticking(workspace) as (_, uuid):
        with running_dora("record", "--attach", uuid[:8], "-o", file) as recording:
            recording.wait_for("recording 1 output")
            wait_until(lambda: file.stat().st_size > 3000, what="messages on disk")
            recording.interrupt()
            done = recording.wait().succeeded()
        wrong = run_dora("record", "--attach", "nothing").exited(1)
        assert 'dataflow "nothing" does not run on this machine as this user' in wrong.stderr
    assert f"wrote {file}" in done.stdout
    (channel,) = info(file)["channels"]
    assert channel["messages"] > 50
    assert channel["missing"] == 0


def test_limits_end_the_recording_and_split_it(workspace: Workspace) -> None:
    with ticking(workspace) as (_, uuid):
        words = ("--attach", uuid, "-o", workspace.path / "r.mcap")
        limits = ("--max-duration", "2s", "--split-duration", "700ms")
        run_dora("record", *words, *limits).succeeded()
        small = workspace.path / "small.mcap"
        run_dora("record", "--attach", uuid, "-o", small, "--max-size", "4kB").succeeded()
    assert 4000 <= small.stat().st_size < 100_000
    files = sorted(workspace.path.glob("r_*.mcap"))
    assert len(files) in (2, 3)
    numbers = [m.sequence for file in files for m in Recording(file).messages()]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def recorders_of(recording: RunningDora) -> list[psutil.Process]:
    """Return the recorder of a command that also runs the dataflow."""
    children = psutil.Process(recording.pid).children()
    return [child for child in children if "dora_recordings.recorder" in child.cmdline()]


def last_sent(stdout: str) -> int:
    lines = stdout.splitlines()
    return max(int(line.rpartition(" ")[2]) for line in lines if " sent " in line)


def recorder_of(recording: RunningDora) -> psutil.Process:
    (child,) = psutil.Process(recording.pid).children()
    return child


def test_the_file_of_a_killed_recorder_is_readable(workspace: Workspace) -> None:
    file = workspace.path / "r.mcap"
    with (
        ticking(workspace) as (_, uuid),
        running_dora("record", "--attach", uuid, "-o", file) as recording,
    ):
        recording.wait_for("recording 1 output")
        wait_until(lambda: list(Recording(file).messages()), what="messages on disk")
        os.kill(recorder_of(recording).pid, signal.SIGKILL)
        done = recording.wait().exited(1)
    assert "the recorder ended unexpectedly (SIGKILL)" in done.stderr
    found = info(file)
    assert found["finished"] is False
    assert found["channels"][0]["messages"] > 0
    workspace.node("ticker", "raise SystemExit('is replaced')")
    run_dora("replay", file, "--speed", "0", cwd=workspace.path).succeeded()
    shown = run_dora("recording", "info", file).succeeded().stdout
    assert "unfinished: the recorder was killed" in shown


def test_the_file_is_finished_when_the_command_is_killed(workspace: Workspace) -> None:
    file = workspace.path / "r.mcap"
    with (
        ticking(workspace) as (_, uuid),
        running_dora("record", "--attach", uuid, "-o", file) as recording,
    ):
        recording.wait_for("recording 1 output")
        recorder = recorder_of(recording)
        recording.send_signal(signal.SIGKILL)
        wait_until(lambda: not recorder.is_running(), what="the recorder to end")
    assert Recording(file).finished


def test_a_full_disk_ends_the_recording_but_not_the_dataflow(workspace: Workspace) -> None:
    file = workspace.path / "r.mcap"
    with ticking(workspace) as (running, uuid):
        with running_dora("record", "--attach", uuid, "-o", file) as recording:
            recording.wait_for("recording 1 output")
            wait_until(lambda: list(Recording(file).messages()), what="messages on disk")
            size = file.stat().st_size + 1000
            resource.prlimit(recorder_of(recording).pid, resource.RLIMIT_FSIZE, (size, size))
            done = recording.wait().exited(1)
        assert f"the recording ended early: {file}: File too large" in done.stderr
        assert running.process.poll() is None
    assert info(file)["finished"] is False


def test_every_message_that_does_not_fit_on_the_disk_is_counted(workspace: Workspace) -> None:
    workspace.node("ticker", TICKER + '            print("sent", number + 1, flush=True)\n')
    path = workspace.dataflow(TICKING)
    file = workspace.path / "r.mcap"
    with running_dora("record", path, "-o", file, cwd=workspace.path) as recording:
        wait_until(
            lambda: file.exists() and list(Recording(file).messages()), what="messages on disk"
        )
        recording.wait_for("sent 1\n")
        (recorder,) = recorders_of(recording)
        size = file.stat().st_size + 1000
        resource.prlimit(recorder.pid, resource.RLIMIT_FSIZE, (size, size))
        recording.wait_for("recording failed: ")
        recording.wait_for(f"sent {last_sent(recording.stdout) + 100}\n")
        recording.interrupt()
        done = recording.wait().exited(1)
    assert f"the recording ended early: {file}: File too large" in done.stderr
    numbers = [message.sequence for message in Recording(file).messages()]
    assert numbers == list(range(1, len(numbers) + 1))
    lost = last_sent(done.stdout) - len(numbers)
    assert re.search(rf"ticker/count +{len(numbers)} +{lost}\n", done.stdout)


def test_the_dataflow_ends_the_recording(workspace: Workspace) -> None:
    workspace.node("ticker", TICKER)
    path = workspace.dataflow(TICKING)
    file = workspace.path / "r.mcap"
    with running_dora("record", path, "-o", file, cwd=workspace.path) as recording:
        wait_until(
            lambda: file.exists() and list(Recording(file).messages()), what="messages on disk"
        )
        recording.interrupt()
        recording.wait().succeeded()
    numbers = [message.sequence for message in Recording(file).messages()]
    assert numbers == list(range(1, len(numbers) + 1))


def test_messages_that_are_not_recorded_are_counted_and_nodes_never_wait(
    workspace: Workspace,
) -> None:
    workspace.node(
        "ticker",
        """
        from dora import Node

        node = Node()
        sent = 0
        for event in node:
            if event["type"] == "INPUT":
                for _ in range(100):
                    node.send_output("count", b"x")
                sent += 100
                print("sent", sent, flush=True)
        """,
    )
    path = workspace.dataflow(TICKING)
    file = workspace.path / "r.mcap"
    with running_dora("record", path, "-o", file, cwd=workspace.path) as recording:
        recording.wait_for("sent 100\n")
        (recorder,) = recorders_of(recording)
        recorder.suspend()
        recording.wait_for("sent 10000\n")
        recorder.resume()
        recording.interrupt()
        done = recording.wait().exited(1)
    assert "messages not recorded" in done.stderr
    found = info(file)
    (channel,) = found["channels"]
    lost = found["lost"]["ticker/count"]
    assert channel["messages"] + lost == last_sent(done.stdout)
    # the gaps in the numbers; those after the last recorded message are lost as well
    assert channel["missing"] <= lost
