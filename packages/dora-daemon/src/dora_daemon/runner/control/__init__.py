"""The socket to the daemon: status, and changes to the running dataflow."""
