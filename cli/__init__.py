"""The command line, `llm-bus`: the door for whoever runs a bus, and for scripts."""
