"""The operator console, one page per file."""
