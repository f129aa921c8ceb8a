"""The socket to the daemon: requests, status, replacement of the runner."""
