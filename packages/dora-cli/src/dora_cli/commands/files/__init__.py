"""Commands about dataflow files."""
