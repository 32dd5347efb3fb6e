"""A real PostgreSQL and a real Redis-compatible server from Python wheels, run as child processes."""
