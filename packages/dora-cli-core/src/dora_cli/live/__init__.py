"""Changes of running dataflows: definitions of nodes, and reload on save."""
