"""A load generator for the gateway, its scenarios, and the report of the results."""
