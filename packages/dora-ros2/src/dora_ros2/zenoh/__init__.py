"""rmw_zenoh without ROS: keys, tokens, the graph, topics, services, actions, parameters."""

from __future__ import annotations

ROUTER = "tcp/localhost:7447"
"""Default address of the router of a computer."""
