"""What follows from facts about machines: pure functions and records."""
