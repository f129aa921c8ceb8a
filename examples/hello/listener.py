"""Prints every greeting until the talker has ended."""

from dora import Node

for event in Node():
    match event["type"]:
        case "INPUT":
            print("heard:", event["value"][0].as_py())
        case "INPUT_CLOSED":
            print("the talker has ended")
        case "STOP":
            print("nothing more will come:", event["id"])
