"""The runner's side of the link process: its process, its channel, its streams and its report."""
