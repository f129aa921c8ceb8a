"""Interface definitions: `.msg`, `.srv`, `.action` and `.idl` files to type descriptions."""
