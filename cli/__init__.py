"""The command line, `llm-bus`, for operators and scripts."""
