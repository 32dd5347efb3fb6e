"""Coordination: the ledger, posts, sequences, leases, tasks, presence and what waits for them."""
