"""The socket to nodes, their handshake, queues and shared memory."""
