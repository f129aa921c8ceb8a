"""Messages about recordings: to recorder processes, and to the machines of a cluster; no I/O."""
