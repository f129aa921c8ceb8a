"""One machine over SSH, its daemon, and work on several machines at once."""
