"""Zenoh sessions, dialing and the connection to the runner."""
