"""A load generator for the gateway, its scenarios, and the report that says what was reached."""
