"""Frames, handshake and flow control between two links, without I/O."""
