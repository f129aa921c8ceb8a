"""YAML documents with positions, and the checks that report them."""
