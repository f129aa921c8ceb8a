"""Code of nodes: which files belong to a node, and sending them to where it runs."""
