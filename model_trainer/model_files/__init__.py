"""Model files: reading ones of any origin, and writing our own."""
