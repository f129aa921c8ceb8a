"""Code of nodes that is sent to this machine: fetched, stored by content, written to folders."""
