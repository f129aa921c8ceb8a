"""Copy the libraries of the page from npm to `static/vendor`, as released, with their licences.

To update: change the versions in package.json, run `npm install --package-lock-only` and then
`python vendor.py`. `--check` compares only.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
TARGET = HERE.parent / "src" / "dora_ui" / "static" / "vendor"

FILES = {
    "preact/dist/preact.mjs": "preact.js",
    "preact/hooks/dist/hooks.mjs": "preact-hooks.js",
    "preact/LICENSE": "preact.LICENSE",
    "htm/dist/htm.module.js": "htm.js",
    "htm/preact/index.module.js": "htm-preact.js",
    "htm/LICENSE": "htm.LICENSE",
    "uplot/dist/uPlot.esm.js": "uplot.js",
    "uplot/dist/uPlot.min.css": "uplot.css",
    "uplot/LICENSE": "uplot.LICENSE",
    "elkjs/lib/elk-worker.min.js": "elkjs-worker.js",
    "elkjs/LICENSE.md": "elkjs.LICENSE",
}
"""File in node_modules, and its name in `static/vendor`."""


def main() -> int:
    subprocess.run(["npm", "ci", "--ignore-scripts", "--silent"], cwd=HERE, check=True)
    check = "--check" in sys.argv[1:]
    wanted = {name: (HERE / "node_modules" / path).read_bytes() for path, name in FILES.items()}
    versions = json.loads((HERE / "package.json").read_text())["dependencies"]
    listing = "".join(f"- {name} {version}\n" for name, version in sorted(versions.items()))
    wanted["README.md"] = (
        "Libraries as released, copied by `packages/dora-ui/frontend/vendor.py`.\n\n"
        + listing
        + "\nThe source of elkjs (EPL-2.0) is at https://github.com/kieler/elkjs.\n"
    ).encode()
    changed = [
        name
        for name, content in wanted.items()
        if not (TARGET / name).is_file() or (TARGET / name).read_bytes() != content
    ]
    if check:
        for name in changed:
            print(f"{TARGET / name} differs from its release; run {Path(__file__).name}")
        return 1 if changed else 0
    TARGET.mkdir(parents=True, exist_ok=True)
    for name, content in wanted.items():
        (TARGET / name).write_bytes(content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
