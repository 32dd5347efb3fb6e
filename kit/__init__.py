"""What a repository installs so that agents follow the protocol: hooks, client configuration, a doctor.

Standard library of Python 3.9 only, and nothing of ours: this folder is copied into other people's repositories.
It never blocks work, except where the documentation says so.
"""

# Raised with every change that a repository should have; the server says which it wants at least.
VERSION = "1.0.0"
