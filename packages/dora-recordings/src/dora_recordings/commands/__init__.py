"""Commands of `dora record`, `replay` and `recording`, and the formats of this wheel."""
