"""The scenarios: one module each, which measures, checks what was answered, and returns a Result."""
