"""The plug-in, as its users see it: `pip install . pytest && pytest`."""

import csv
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
SCRIPTS = Path(sys.executable).parent


def dora(*words: object) -> str:
    done = run_dora(*words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_dora(*words: object) -> subprocess.CompletedProcess[str]:
    path = f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        [SCRIPTS / "dora", *map(str, words)],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command() -> None:
    assert dora("hello", "world", "--loud") == "HELLO WORLD\n"


def test_the_node_and_the_format(tmp_path: Path) -> None:
    recording, table = tmp_path / "hello.mcap", tmp_path / "hello.csv"
    dora("record", HERE / "dataflow.yml", "-o", recording)
    dora("recording", "export", recording, "--to", "csv", "-o", table)
    with table.open() as file:
        rows = [(row["output"], row["values"]) for row in csv.DictReader(file)]
    assert rows == [("greeter/greeting", f"['hello {number}']") for number in (1, 2, 3)]


def test_the_check_of_arguments(tmp_path: Path) -> None:
    file = tmp_path / "dataflow.yml"
    file.write_text("nodes:\n  - id: greeter\n    path: dora-hello-node\n    args: --loud\n")
    done = run_dora("validate", file)
    assert f'{file}:4:11: node "greeter": dora-hello-node has no arguments' in done.stdout
    assert done.returncode == 1
