"""Zenoh sessions and the two sockets to the runner."""
