"""Log files of dataflows, read and followed for clients."""
