"""A stub of the models' APIs on 127.0.0.1: real clients run real sessions against it, without an account.

Each request that offers tools takes the next step of a script (`scripts`). One module per API translates requests and
answers; `server` serves them all.
"""
