"""Counts the ticks of three timers; looks away for a while, and sees how many have waited."""

import time
from collections import Counter

from dora import Node

node = Node()
ticks: Counter[str] = Counter()
end = time.monotonic() + 0.5
while time.monotonic() < end:
    event = node.next()
    if event is None or event["type"] == "STOP":
        break
    ticks[event["id"]] += 1
print(f"in half a second: {ticks['fast']} fast ticks, {ticks['slow']} slow ones")

time.sleep(0.5)
waiting = Counter(event["id"] for event in node.drain())
print(f"after half a second away: {waiting['fast']} fast ticks wait, {waiting['late']} late one")
