"""Control-plane messages: one file a direction of talk."""
