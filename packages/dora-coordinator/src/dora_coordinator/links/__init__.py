"""Links between the machines of one dataflow: edges, state of each pair, waiting; no I/O."""
