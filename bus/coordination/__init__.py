"""Coordination: the ledger, posts, sequences, leases, tasks, presence, long polls and their jobs."""
