"""`python -m dora_ros2`: the node behind `ros2:` in a dataflow."""

from __future__ import annotations

import os
import sys

from dora_ros2.bridge import SETTINGS, main
from dora_ros2.errors import Ros2Error

if __name__ == "__main__":
    if SETTINGS not in os.environ:
        sys.exit("this is the program of `ros2` nodes, which `dora run` starts; see `dora ros2`")
    try:
        main()
    except Ros2Error as error:
        sys.exit(f"[ERROR] {error}")
