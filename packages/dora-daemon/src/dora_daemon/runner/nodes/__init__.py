"""Nodes on this machine: their socket, sessions, queues, shared memory and log lines."""
