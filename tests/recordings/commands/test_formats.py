"""Formats of plug-ins: what `dora recording export` does around them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from recordings.export.recorded_messages import message
from support.command_line import Dora
from support.plugin_wheels import PluginWheels, plugin_wheels

from dora_recordings.conversion import CannotConvert, unfinished
from dora_recordings.mcap_file import McapFile

LINES = """\
from dora_recordings.conversion import unfinished
from dora_recordings.formats import Files, Target, reading

def rash(files: Files, target: Target = None) -> None:
    with reading(files) as recording, target.open("w") as file:
        file.writelines(message.topic for message in recording.messages())
        if target.name == "partial":
            raise IndexError("of rash")

def lines(files: Files, target: Target = None) -> None:
    with reading(files) as recording, unfinished(target) as new, new.open("w") as file:
        for message in recording.messages():
            file.write(message.topic)
            if message.sequence == 3:
                raise IndexError("of lines")
"""


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PluginWheels]:
    monkeypatch.delitem(sys.modules, "plug_lines", raising=False)
    for wheels in plugin_wheels(tmp_path, monkeypatch):
        formats = {"rash": "plug_lines:rash", "lines": "plug_lines:lines"}
        wheels.install("dora-acme", {"dora.exports": formats}, plug_lines=LINES)
        yield wheels


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "r.mcap"
    file = McapFile(path, "nodes: []", {"epoch_ns": "0", "boot_id": "b", "working_dir": "."})
    for number in range(1, 5):
        file.add(message("arm/joints", [1.0, 2.0], at=number, sequence=number))
    file.finish({})
    return path


@pytest.mark.usefixtures("wheels")
def test_an_export_never_writes_to_its_recording(
    dora: Dora, recording: Path, tmp_path: Path
) -> None:
    before = recording.read_bytes()
    (tmp_path / "link.mcap").symlink_to(recording)
    for target in (recording, tmp_path / "link.mcap"):
        shown = dora("recording", "export", recording, "--to", "rash", "-o", target)
        assert shown.code == 1
        assert f"{target} is read and written; choose another path with -o" in shown.err
        assert recording.read_bytes() == before
    done = dora("recording", "export", recording, "--to", "rash", "-o", tmp_path / "new")
    assert done.code == 0
    assert (tmp_path / "new").exists()


@pytest.mark.usefixtures("wheels")
def test_a_defect_of_a_format_names_the_plug_in(
    dora: Dora, recording: Path, tmp_path: Path
) -> None:
    shown = dora("recording", "export", recording, "--to", "lines", "-o", tmp_path / "x")
    assert shown.code == 1
    assert shown.err.startswith(
        "[ERROR]\nunexpected error in the plug-in dora-acme 0.3; please report it to its author\n"
        "Traceback (most recent call last):\n"
    )
    assert "plug_lines.py" in shown.err.splitlines()[3]
    assert shown.err.endswith("IndexError: of lines\n")
    assert list(tmp_path.glob("*x*")) == []


@pytest.mark.usefixtures("wheels")
def test_an_incomplete_file_is_named(dora: Dora, recording: Path, tmp_path: Path) -> None:
    partial = tmp_path / "partial"
    shown = dora("recording", "export", recording, "--to", "rash", "-o", partial)
    assert shown.code == 1
    assert f"{partial} is incomplete; remove it" in shown.err
    partial.unlink()
    shown = dora("recording", "export", recording, "--to", "lines", "-o", partial)
    assert "is incomplete" not in shown.err


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("dora recording export --to l", ["lerobot", "lines"]),
        ("dora recording export a.mcap --t", ["--to"]),
        ("dora recording export --to nope --t", []),
    ],
)
def test_a_completion_offers_formats(wheels: PluginWheels, line: str, offered: list[str]) -> None:
    assert wheels.completions(line) == offered


def test_a_format_that_cannot_be_used_is_named(
    dora: Dora, wheels: PluginWheels, recording: Path
) -> None:
    module = "value = 5\ndef without() -> None: ..."
    formats = {"value": "plug_wrong:value", "without": "plug_wrong:without"}
    wheels.install("dora-wrong", {"dora.exports": formats}, plug_wrong=module)
    for name, reason in (("value", "not a callable"), ("without", "no argument for files")):
        shown = dora("recording", "export", recording, "--to", name)
        assert (shown.code, shown.out) == (1, "")
        assert f"`--to {name}` of the plug-in dora-wrong 0.3 cannot be used (" in shown.err
        assert reason in shown.err


def test_a_broken_import_leaves_the_others(
    dora: Dora, wheels: PluginWheels, tmp_path: Path
) -> None:
    module = "def mine(path: str) -> None: print('mine')\nmine.reads = lambda path: True"
    wheels.install("dora-mine", {"dora.imports": {"mine": "plug_mine:mine"}}, plug_mine=module)
    wheels.install("dora-bad", {"dora.imports": {"bad": "no_module:x"}})
    shown = dora("recording", "import", tmp_path / "any")
    assert (shown.code, shown.out) == (0, "mine\n")
    assert "the format `--from bad` of the plug-in dora-bad 0.3 cannot be imported" in shown.err


def test_an_export_creates_folders_and_says_when_nothing_was_written(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b"
    with unfinished(target) as new:
        new.write_text("x")
    assert target.read_text() == "x"
    other = tmp_path / "c"
    with pytest.raises(CannotConvert, match="nothing was written to"), unfinished(other):
        pass
