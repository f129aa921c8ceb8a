"""rmw_zenoh without ROS: keys, tokens, the graph, topics, services, actions, parameters."""

from __future__ import annotations
