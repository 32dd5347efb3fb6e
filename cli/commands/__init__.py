"""The commands: each module exports `command`, which `llm-bus NOUN` runs. Import the engine inside functions."""
