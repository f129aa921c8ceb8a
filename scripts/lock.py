"""Write the lock of all dependencies that a release puts on machines: ``python scripts/lock.py``.

It holds names, versions, environment markers and the hashes of every wheel, for all platforms.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "packages" / "dora-cli-core" / "src" / "dora_cli" / "bundle" / "requirements.lock"


def main() -> None:
    """Resolve again; exit with the output of uv if this fails."""
    projects = [
        tomllib.loads(path.read_text())["project"]
        for path in sorted((ROOT / "packages").glob("*/pyproject.toml"))
    ]
    own = {project["name"] for project in projects}
    lines = {
        line
        for project in projects
        for line in project["dependencies"]
        if line.partition("==")[0] not in own
    }
    with tempfile.TemporaryDirectory() as folder:
        requirements = Path(folder) / "requirements.in"
        requirements.write_text("".join(f"{line}\n" for line in sorted(lines)))
        words = ["uv", "pip", "compile", "--quiet", "--universal", "--python-version", "3.11"]
        words += ["--generate-hashes", "--no-header", "--no-annotate", "--no-emit-index-url"]
        words += ["--upgrade", str(requirements), "--output-file", str(LOCK)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(done.stderr)
    print(f"{LOCK.relative_to(ROOT)}: {LOCK.read_text().count('==')} packages")


if __name__ == "__main__":
    main()
