"""CDR payloads to and from Arrow, by functions that are generated for each type."""
