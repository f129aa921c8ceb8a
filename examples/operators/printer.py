"""Prints the totals."""

from dora import Node

for event in Node():
    if event["type"] == "INPUT":
        print("sum of squares so far:", event["value"][0].as_py())
