"""Explanations of dataflows: from a coordinator or from files, as text, in archives."""
