"""Rollups of the ledger, project metrics, project reports and service totals."""
