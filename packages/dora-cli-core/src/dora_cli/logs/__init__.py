"""Log lines: formats, filters, files, streams of daemons, reports of a run."""
