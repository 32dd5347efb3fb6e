"""Two tenants with the same names and numbers, driven by random calls and judged against a model in plain Python."""
