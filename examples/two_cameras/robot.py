"""A robot with two joints: obeys the gate, and reports where its joints are."""

import time
from collections import Counter

import numpy as np
import pyarrow as pa

from dora import Node

joints = np.array([0.5, 0.5], dtype=np.float32)
obeyed: Counter[str] = Counter()
spreads = [0.0]
former = ""

node = Node()
for event in node:
    if event["type"] != "INPUT":
        continue
    if event["id"] == "tick":
        metadata = {"names": ["pan", "tilt"], "stamp": time.time_ns()}
        node.send_output("state", pa.array(joints), metadata)
        continue
    step = event["value"].to_numpy() - joints
    assert np.abs(step).max() <= 0.0201, f"the gate let a step of {step} pass"
    joints += step
    source = event["metadata"]["source"]
    obeyed[source] += 1
    spreads.append(event["metadata"].get("spread", 0.0))
    if source != former:
        print(f"{source} moves the joints", flush=True)
        former = source
counts = ", ".join(f"{count} from {source}" for source, count in sorted(obeyed.items()))
print(f"actions: {counts}; pictures at most {max(spreads) * 1e3:.1f} ms apart", flush=True)
