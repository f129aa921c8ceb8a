"""The project of `dora new --kind lerobot`, from the folder `project`."""

from collections.abc import Mapping, Sequence
from pathlib import Path


def template(name: str) -> tuple[Mapping[str, str], Sequence[str]]:
    """Return the files of a project, and the commands to go on with."""
    folder = Path(__file__).with_name("project")
    found = {
        path.name.removesuffix(".txt"): path.read_text(encoding="utf-8").replace("@NAME@", name)
        for path in sorted(folder.iterdir())
    }
    found[".gitignore"] = found.pop("gitignore")
    return found, ["dora record teach.yml -o teach.mcap --stop-after 60s"]
