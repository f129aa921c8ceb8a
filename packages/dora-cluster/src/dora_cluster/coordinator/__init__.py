"""The coordinator of a cluster: its process, its systemd service, its versions."""
