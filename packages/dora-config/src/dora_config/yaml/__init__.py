"""YAML documents with positions, validation with messages, quantities."""
