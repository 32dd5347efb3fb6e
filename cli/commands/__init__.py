"""One file per noun; its `command` is what `llm-bus NOUN` runs. Import the engine inside functions."""
