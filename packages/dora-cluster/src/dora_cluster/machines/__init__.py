"""One machine over SSH and its daemon, and work on several machines at once."""
