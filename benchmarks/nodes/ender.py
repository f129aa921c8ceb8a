"""Connects and ends."""

from dora import Node

Node()
