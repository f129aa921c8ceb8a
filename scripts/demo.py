"""Run the README's first command, word by word, in a copy of the repository.

The folder has a space in its name, the home is empty and the environment cleared, as after a login.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ("detections.parquet", "faces.png", "timeline.png")
PNG = b"\x89PNG\r\n\x1a\n"
NETWORK = ("PIP_", "SSL_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
"""Beginnings of the variables by which pip and uv reach the package index."""
TIME_LIMIT = 600
"""Seconds for installing everything and running the example."""


def first_command() -> str:
    found = re.search(r"^```sh\n(.+?)\n```$", (ROOT / "README.md").read_text(), re.M | re.S)
    if found is None:
        sys.exit("README.md holds no sh block")
    return found[1]


def copy_repository(target: Path) -> None:
    """What git would commit, and nothing that lies about beside it."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


def main() -> None:
    command = first_command()
    with tempfile.TemporaryDirectory(prefix="demo", dir="/tmp") as folder:
        checkout, home = Path(folder) / "dora for Python", Path(folder) / "home"
        home.mkdir()
        copy_repository(checkout)
        environment = {
            name: value
            for name, value in os.environ.items()
            if name == "PATH" or name.upper().startswith(NETWORK)
        } | {"HOME": str(home)}
        print(f"$ {command}", flush=True)
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=checkout, env=environment, stdin=subprocess.DEVNULL, timeout=TIME_LIMIT,
            check=False,
        )  # fmt: skip
        if done.returncode != 0:
            sys.exit(f"the README's first command ended with {done.returncode}")
        for name in RESULTS:
            result = checkout / "examples" / "vision" / "out" / name
            if not result.is_file() or result.stat().st_size < 1000:
                sys.exit(f"examples/vision/out/{name} is missing or empty")
            if result.suffix == ".png" and not result.read_bytes().startswith(PNG):
                sys.exit(f"examples/vision/out/{name} is not a picture")
        print("demo: all results are there")


if __name__ == "__main__":
    main()
