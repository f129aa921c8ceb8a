"""The coordinator of a cluster: its process, its service, its versions."""
