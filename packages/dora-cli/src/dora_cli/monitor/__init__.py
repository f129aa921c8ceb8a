"""Tables of nodes and edges of `dora top`."""
