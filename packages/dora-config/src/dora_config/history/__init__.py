"""What happened to dataflows: kept events, and their explanation for users."""
