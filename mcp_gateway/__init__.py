"""The agents' door: the bus's tools over MCP."""
