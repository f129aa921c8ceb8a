"""A human with a joystick: takes over for a second, and stops the demo in the end."""

import pyarrow as pa

from dora import Node

RATE = 50  # ticks per second
TAKES_OVER, LETS_GO, LEAVES = 2 * RATE, 3 * RATE, 5 * RATE

node = Node()
ticks = 0
for event in node:
    if event["type"] == "INPUT":
        ticks += 1
        if TAKES_OVER <= ticks < LETS_GO:
            node.send_output("action", pa.array([0.5, 0.5], pa.float32()))
        if ticks == LEAVES:
            node.stop_dataflow("the demo is over")
