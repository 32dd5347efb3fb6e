"""The gateway: the tools of the bus over MCP, for agents."""
