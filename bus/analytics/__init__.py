"""Rollups of the ledger, the metrics of a project, reports and service totals."""
