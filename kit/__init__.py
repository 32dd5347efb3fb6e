"""The kit that a repository installs so that its agents follow the protocol: hooks, client configuration, a doctor.

It is copied into other repositories: it uses only the standard library of Python 3.9 and imports no other package of
this project. It never blocks work, except in the documented cases.
"""

# Raise it with every change that installed repositories should get. The server publishes the minimum that it requires.
VERSION = "1.2.0"
