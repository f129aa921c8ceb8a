"""Sockets, files and the store: carries out the commands of the state machine."""
