"""Write the generated reference pages, or with ``--check`` list those that are out of date.

Each module here has ``PAGE``, a path below ``docs/``, and ``render() -> str``. The page of errors
is checked by `tests/repository/test_bad_input.py`, which runs the same commands.
"""

from __future__ import annotations

import difflib
import sys
from pathlib import Path
from types import ModuleType

import bad_input_page
import cli_page
import metrics_page
import node_api_page
import node_plugins_page
import plugins_page
import rest_page
import types_page
import wheels_page
import yaml_page

DOCS = Path(__file__).resolve().parents[1]
PAGES: tuple[ModuleType, ...] = (
    yaml_page,
    types_page,
    cli_page,
    node_api_page,
    rest_page,
    metrics_page,
    plugins_page,
    wheels_page,
    node_plugins_page,
)


def main() -> int:
    check = "--check" in sys.argv[1:]
    outdated = 0
    for module in PAGES if check else (*PAGES, bad_input_page):
        path = DOCS / module.PAGE
        new = module.render().rstrip("\n") + "\n"
        old = path.read_text() if path.exists() else ""
        if new == old:
            continue
        if not check:
            path.write_text(new)
            print(f"wrote docs/{module.PAGE}")
            continue
        outdated += 1
        print(f"docs/{module.PAGE} is out of date; run: python docs/generate", file=sys.stderr)
        difference = difflib.unified_diff(old.splitlines(), new.splitlines(), "is", "should be")
        print("\n".join(list(difference)[:40]), file=sys.stderr)
    return 1 if outdated else 0


if __name__ == "__main__":
    sys.exit(main())
