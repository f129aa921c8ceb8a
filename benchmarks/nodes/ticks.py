"""Records the arrival of each tick; writes the errors of the intervals, in ns."""

import itertools
import time

from payload import setting, write_result

from dora import Node


def main() -> None:
    period, most = int(setting("PERIOD_NS")), int(setting("MOST"))
    node = Node()
    arrivals: list[int] = []
    for event in node:
        if event["type"] == "INPUT":
            arrivals.append(time.monotonic_ns())
            if len(arrivals) > most:
                break
    gaps = [later - earlier for earlier, later in itertools.pairwise(arrivals)]
    write_result({"off_ns": [abs(gap - period) for gap in gaps[10:]]})


if __name__ == "__main__":
    main()
