"""Alembic: what the database is, step by step."""
