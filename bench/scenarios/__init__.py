"""The scenarios: each module measures, checks the responses, and returns a Result."""
