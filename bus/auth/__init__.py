"""Sign-in on the web: identities at providers, browser sessions and login links."""
