"""Reads the ticks of three timers; pauses, then counts the ticks that have waited."""

import time
from collections import Counter
from datetime import datetime
from itertools import pairwise
from statistics import median

from dora import Node

node = Node()
# Due times of ticks, which may have waited in the queue.
due: dict[str, list[datetime]] = {"fast": [], "slow": [], "late": []}
while len(due["slow"]) < 6:
    event = node.next()
    if event is None or event["type"] == "STOP":
        raise SystemExit
    due[event["id"]].append(event["metadata"]["timestamp"])
for name in ("fast", "slow"):
    apart = median((after - before).total_seconds() for before, after in pairwise(due[name]))
    print(f"a {name} tick every {apart * 1000:.0f} ms")

time.sleep(0.5)
waiting = Counter(event["id"] for event in node.drain())
print(f"after half a second away: {waiting['fast']} fast ticks wait, {waiting['late']} late one")
