"""Hears the ticks of three timers; looks away for a while, and sees how many have waited."""

import time
from collections import Counter
from datetime import datetime
from itertools import pairwise
from statistics import median

from dora import Node

node = Node()
# When each tick was due: one that had to wait for us does not tell the time of now.
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
