"""Notifications that leave the service: webhooks and e-mail, through an outbox."""
