"""Configuration: settings from the environment, their redaction, and the shutdown signal."""
