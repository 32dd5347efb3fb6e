"""A fleet of simulated agents, so that a bus can be seen at work: planned from a seed, then played for real."""
