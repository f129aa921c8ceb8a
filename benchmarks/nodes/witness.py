"""Writes the arrival of the first message of each life, in seconds of CLOCK_MONOTONIC."""

import time
from pathlib import Path

from payload import setting

from dora import Node


def main() -> None:
    node = Node()
    seen = False
    for event in node:
        if event["type"] == "INPUT" and not seen:
            seen = True
            with Path(setting("RESULT")).open("a") as file:
                file.write(f"{time.monotonic()}\n")


if __name__ == "__main__":
    main()
