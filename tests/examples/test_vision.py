"""The vision example searches and records every frame of a film."""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from examples.conftest import CopyExample
from foxglove_schemas_protobuf import RawImage_pb2
from mcap.reader import make_reader
from support.dora import DORA, RunningDora, run_dora, running_dora
from support.runner.foxglove_client import FoxgloveClient

from dora_recordings.arrow_messages import decode
from dora_recordings.reading import Recording

PNG = b"\x89PNG\r\n\x1a\n"
FRAMES = 120  # of the film


@pytest.fixture(scope="module")
def own_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Interpreter of another environment, which has the packages of the tests' environment.

    The example installs libraries that pyarrow tries to import in every call. In the tests' own
    environment, a process of another test could find them half written.
    """
    home = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home], check=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    beside = f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n"
    (home / "lib" / version / "site-packages" / "beside.pth").write_text(beside)
    return home / "bin" / "python"


@pytest.mark.parametrize("speed", ["1", "0"], ids=["film speed", "as fast as possible"])
def test_no_frame_is_lost(speed: str, copy_example: CopyExample, own_python: Path) -> None:
    """As fast as possible, the example is also recorded; at film speed it is shown in Foxglove."""
    file = copy_example("vision")
    own_dora = (own_python, "-m", "dora_config.launcher")
    recording = file.parent / "vision.mcap"
    words = ("run", file) if speed == "1" else ("record", file, "-o", recording)
    if speed == "1":
        with file.open("a") as more:
            more.write(FOXGLOVE.format(program=DORA.with_name("dora-foxglove")))
    with running_dora(*words, "--env", f"SPEED={speed}", program=own_dora) as running:
        if speed == "1":
            check_shown(running)
        done = running.wait(timeout=280).succeeded()
    if recording.exists():
        check_recording(recording)
    counts = rf"{FRAMES} in the file, {FRAMES} sent, {FRAMES} seen, {FRAMES} searched"
    assert re.search(counts, done.output), done
    assert f"in {FRAMES} of {FRAMES} frames" in done.output
    assert re.search(rf"\] +{FRAMES}/{FRAMES} +face at", done.output)
    if speed == "0":  # the example's own test needs what the build has installed
        command = (own_python, "-m", "pytest", "-q", "-p", "no:anyio", "-p", "no:cacheprovider")
        tested = subprocess.run(command, cwd=file.parent, capture_output=True, text=True)
        assert tested.returncode == 0, tested.stdout + tested.stderr
    check_results(file.parent / "out")


FOXGLOVE = """
  - id: foxglove
    path: {program}
    env: {{FOXGLOVE_PORT: 0}}
    inputs: {{frame: camera/frame}}
"""


def check_shown(running: RunningDora) -> None:
    """A viewer of Foxglove receives the pictures."""
    with FoxgloveClient(running) as client:
        shown = client.receive({"/camera/frame": 10})["/camera/frame"]
    pictures = [RawImage_pb2.RawImage.FromString(message) for message in shown]
    assert {(one.width, one.height, one.encoding) for one in pictures} == {(176, 144, "bgr8")}
    assert {len(one.data) for one in pictures} == {176 * 144 * 3}
    assert len({one.data for one in pictures}) == 10


def check_recording(path: Path) -> None:
    """Other tools read the pictures that were sent."""
    target = path.with_name("foxglove.mcap")
    run_dora("recording", "export", path, "--to", "foxglove", "-o", target).succeeded()
    sent = [decode(one.schema, one.data)[0] for one in Recording(path).messages(["camera/frame"])]
    with target.open("rb") as file:
        found = make_reader(file).iter_messages(["/camera/frame"])
        pictures = [RawImage_pb2.RawImage.FromString(message.data) for _, _, message in found]
    assert len(sent) == FRAMES
    assert [one.data for one in pictures] == [array.to_numpy().tobytes() for array in sent]
    assert {(one.width, one.height, one.encoding) for one in pictures} == {(176, 144, "bgr8")}
    rerun = Path(sysconfig.get_path("scripts")) / "rerun"
    viewed = path.with_name("vision.rrd")
    subprocess.run([rerun, "mcap", "convert", target, "-o", viewed], check=True)
    shown = subprocess.run([rerun, "rrd", "print", viewed], check=True, capture_output=True).stdout
    chunks = [line for line in shown.decode().splitlines() if " - /camera/frame - " in line]
    rows = [re.search(r"with (\d+) rows", line) for line in chunks if "Image:buffer" in line]
    assert sum(int(one[1]) for one in rows if one is not None) == FRAMES


def check_results(folder: Path) -> None:
    faces = pq.read_table(folder / "detections.parquet").to_pydict()
    assert sorted(set(faces["frame"])) == list(range(FRAMES))
    # The head stays left of the middle of the 176 x 144 pixels and tilts to one side.
    assert all(50 < x < 100 and 40 < y < 80 for x, y in zip(faces["x"], faces["y"], strict=True))
    assert all(latency > 0 for latency in faces["latency_ms"])
    for picture in ("faces.png", "timeline.png"):
        content = (folder / picture).read_bytes()
        assert content.startswith(PNG)
        assert len(content) > 20_000
