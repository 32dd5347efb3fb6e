"""The authorization server for MCP clients (OAuth 2.1), on Authlib's server side.

Not to be confused with webapp/oauth_client.py, with which people sign in to this service at a provider.
Source: docs/decisions/0049-authorization-server.md
"""
