"""Proof of the guarantees: clients record what they did, faults are injected, and a checker judges the history."""
