"""Arrow arrays, metadata and types of messages."""
