"""Sign-in on the web: identities, sessions and one-time login links."""
