"""The runner of one dataflow: supervises its nodes."""
