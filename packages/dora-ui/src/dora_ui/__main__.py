"""``python -m dora_ui SOURCE``: the page beside another command, until standard input ends."""

from __future__ import annotations

import sys

import dora_config.quick_imports  # noqa: F401
from dora_cli import errors
from dora_ui.page_process import main

if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except Exception as error:  # noqa: BLE001 - last handler of the process
        sys.exit(errors.report(error))
