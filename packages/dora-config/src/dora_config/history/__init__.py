"""History of dataflows: kept events, and their explanation for users."""
