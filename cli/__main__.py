"""`python -m cli` is `llm-bus`, for places where the package is not installed, such as a buildpack's checkout."""

from cli.main import main

main(prog_name="llm-bus")
