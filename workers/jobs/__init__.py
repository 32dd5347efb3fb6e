"""The jobs, a file for each noun. A new file with a function under `@job` is all that a new job takes."""
