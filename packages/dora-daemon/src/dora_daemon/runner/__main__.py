"""A runner that a daemon starts: ``python -m dora_daemon.runner DIRECTORY [LOCK_FD]``.

With ``--spare FD`` it waits for a directory, see ``spare``.

The directory holds ``plan.json``. The process leads its own session and continues
without its daemon. When the dataflow has ended the result is in ``result.json`` until it is
acknowledged on the socket, or removed by the daemon after the end of the process.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import dora_config.quick_imports  # noqa: F401
from dora_config.zygote_process import start_early
from dora_daemon.process_tree.runtime_dir import PLAN
from dora_daemon.runner.process import runners_unit

if __name__ == "__main__":
    entering = runners_unit.enter(os.environ)  # other modules are imported meanwhile
    descriptor: int | None
    if sys.argv[1] == "--spare":
        from dora_daemon.runner import spare

        directory, descriptor = spare.wait(int(sys.argv[2]))
    else:
        directory = Path(sys.argv[1])
        descriptor = int(sys.argv[2]) if len(sys.argv) > 2 else None
        if not entering.begun:  # otherwise the zygote would stay in the present unit
            start_early(str(directory / PLAN))
    from dora_daemon.runner.background import main

    sys.exit(main(directory, descriptor, entering.finish))
