"""Sockets, files and the store: executes the commands of the state machine."""
