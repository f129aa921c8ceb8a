"""Nodes on this machine: their socket, handshake, queues, shared memory and log lines."""
