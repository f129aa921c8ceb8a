"""Drives a turtle in a circle, until it has moved and its camera has sent pictures."""

import pyarrow as pa

from dora import Node

TWIST = pa.array([{"linear": {"x": 2.0}, "angular": {"z": 1.5}}])

node = Node()
places: list[tuple[float, float]] = []
images = 0
for event in node:
    if event["type"] != "INPUT":
        continue
    if event["id"] == "tick":
        node.send_output("velocity", TWIST)
    elif event["id"] == "pose":
        pose = event["value"][0].as_py()
        places.append((pose["x"], pose["y"]))
    elif event["id"] == "image":
        images += 1
        if images == 1:
            image = event["value"]
            height, width = image.field("height")[0], image.field("width")[0]
            print(f"an image of {width} x {height}, {image.field('encoding')[0]}")
    if images >= 5 and places and max(places)[0] - min(places)[0] > 1:
        print("the turtle moves")
        node.stop_dataflow("the turtle moves")
        break
