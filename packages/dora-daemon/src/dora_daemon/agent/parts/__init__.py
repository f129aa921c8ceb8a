"""Parts of dataflows on this machine."""
