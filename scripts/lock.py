"""Write the lock of all dependencies of a release: ``python scripts/lock.py``.

It holds names, versions, environment markers and the hashes of every wheel, for all platforms, and
so does the lock of the libraries of codecs. Another
file has the names of those that `dora cluster` puts on machines; with ``--keep`` only this
file is written.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from dora_cluster.bundle.dependencies import CODECS_LOCK, FOR_MACHINES, LOCK
from dora_cluster.bundle.own_packages import CORE, GROUPS_FOR_MACHINES
from dora_config.installation import with_needed

ROOT = Path(__file__).resolve().parent.parent
BUNDLE = ROOT / "packages" / "dora-cluster" / "src" / "dora_cluster" / "bundle"
NOT_SENT = ("uv",)
"""Dependencies of the daemon for builds on the computer of a user."""


def main() -> None:
    """Resolve again; exit with the output of uv if this fails."""
    projects = {
        path.parent.name: tomllib.loads(path.read_text())["project"]
        for path in sorted((ROOT / "packages").glob("*/pyproject.toml"))
    }
    lock = BUNDLE / LOCK
    if "--keep" not in sys.argv[1:]:
        lock.write_text(_compiled(_lines(projects, projects), "--generate-hashes", "--upgrade"))
        codecs = projects["dora-daemon"]["optional-dependencies"]["h264"]
        (BUNDLE / CODECS_LOCK).write_text(_compiled(codecs, "--generate-hashes", "--upgrade"))
    lines = [
        line for line in _lines(projects, _sent(projects)) if Requirement(line).name not in NOT_SENT
    ]
    sent = _compiled(lines, "--constraint", str(lock))
    names = sorted({line.partition("==")[0] for line in sent.splitlines()})
    (BUNDLE / FOR_MACHINES).write_text("".join(f"{name}\n" for name in names))
    print(
        f"{lock.relative_to(ROOT)}: {lock.read_text().count('==')} packages, machines: {len(names)}"
    )


def _sent(projects: Mapping[str, Any]) -> Iterable[str]:
    """Yield the wheels that machines get."""
    yield from with_needed(CORE)
    for name, project in projects.items():
        if not project.get("entry-points", {}).keys().isdisjoint(GROUPS_FOR_MACHINES):
            yield name


def _lines(projects: Mapping[str, Any], wheels: Iterable[str]) -> list[str]:
    lines = {line for wheel in wheels for line in projects[wheel]["dependencies"]}
    return sorted(line for line in lines if line.partition("==")[0] not in projects)


def _compiled(lines: Iterable[str], *options: str) -> str:
    """Return the pins of requirements and of all that they depend on."""
    with tempfile.TemporaryDirectory() as folder:
        requirements, target = Path(folder) / "requirements.in", Path(folder) / "requirements.txt"
        requirements.write_text("".join(f"{line}\n" for line in lines))
        words = ["uv", "pip", "compile", "--quiet", "--universal", "--python-version", "3.11"]
        words += ["--no-header", "--no-annotate", "--no-emit-index-url", *options]
        words += [str(requirements), "--output-file", str(target)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            sys.exit(done.stderr)
        return target.read_text()


if __name__ == "__main__":
    main()
