"""Where definitions are found, and what is said when they are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from dora_ros2.errors import DefinitionError
from dora_ros2.types import SHIPPED, Types


def write(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def fields(definitions: Types, name: str) -> list[str]:
    return [one.name for one in definitions.structure(name).fields]


def test_the_first_folder_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "own", "std_msgs/msg/String.msg", "int8 own\n")
    write(tmp_path / "ament", "share/std_msgs/msg/String.msg", "int8 ament\n")
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"/nowhere:{tmp_path / 'ament'}")
    assert fields(Types([tmp_path / "own"]), "std_msgs/msg/String") == ["own"]
    assert fields(Types(), "std_msgs/msg/String") == ["ament"]
    monkeypatch.delenv("AMENT_PREFIX_PATH")
    assert fields(Types(), "std_msgs/msg/String") == ["data"]


def test_folders_beside_a_dataflow(tmp_path: Path) -> None:
    write(tmp_path, "msg/Mine.msg", "int8 x\nYours yours\n")
    write(tmp_path, "msg/Yours.idl", "module any { module msg { struct Yours { long y; }; }; };")
    write(tmp_path, "msg/String.msg", "int8 wrong\n")
    definitions = Types([tmp_path])
    assert fields(definitions, "any/msg/Mine") == ["x", "yours"]
    assert [one.name for one in definitions.description("any/msg/Mine").referenced] == [
        "any/msg/Yours"
    ]
    assert fields(definitions, "std_msgs/msg/String") == ["data"]


def test_folder_of_a_package(tmp_path: Path) -> None:
    write(tmp_path, "package.xml", "<package><name>mine</name></package>")
    write(tmp_path, "action/Go.action", "---\n---\nint8 x\n")
    definitions = Types([tmp_path])
    assert fields(definitions, "mine/action/Go_Feedback") == ["x"]
    with pytest.raises(DefinitionError, match='found no definition of "other/action/Go"'):
        definitions.structure("other/action/Go")


def test_unknown_types() -> None:
    with pytest.raises(DefinitionError, match='did you mean "std_msgs/msg/String"'):
        Types().structure("std_msgs/msg/Strimg")
    with pytest.raises(DefinitionError, match=r"put my_pkg/msg/X\.msg into a folder"):
        Types().structure("my_pkg/msg/X")
    with pytest.raises(DefinitionError, match='no definition of "std_srvs/srv/SetBool_Other"'):
        Types().structure("std_srvs/srv/SetBool_Other")


def test_circle(tmp_path: Path) -> None:
    write(tmp_path, "msg/A.msg", "B b\n")
    write(tmp_path, "msg/B.msg", "A[] a\n")
    with pytest.raises(DefinitionError, match='"any/msg/A" contains itself'):
        Types([tmp_path]).description("any/msg/A")


def test_all_shipped_definitions_are_valid() -> None:
    definitions = Types()
    names = [f"{path.parts[-3]}/{path.parts[-2]}/{path.stem}" for path in SHIPPED.glob("*/*/*.*")]
    assert len(names) > 190
    for name in names:
        assert definitions.description(name).hash.startswith("RIHS01_")
