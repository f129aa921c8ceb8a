"""Log lines: formats, local files, remote streams, reports."""
