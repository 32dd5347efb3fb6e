"""Tenancy: owners, projects, participants, participations, tokens, invites and the audit log."""
