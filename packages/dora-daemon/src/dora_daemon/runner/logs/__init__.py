"""Log entries of nodes: files, terminal, log outputs, event queue."""
