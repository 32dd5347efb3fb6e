"""Webhooks and e-mails, delivered through an outbox."""
