"""Reference pages that are generated from the code; `python -m cli.reference FOLDER` writes them."""
