"""A build in a process of its own: ``python -m dora_daemon.build DIRECTORY LOCK_FD``."""

from __future__ import annotations

import sys
from pathlib import Path

from dora_daemon.build.job_process import main

if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
