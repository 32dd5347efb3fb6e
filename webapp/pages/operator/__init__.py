"""The operator console, one page per module."""
