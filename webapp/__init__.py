"""The browsers' door: what people see, and where invites are redeemed."""
