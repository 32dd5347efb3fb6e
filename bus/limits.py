"""The bounds of what clients send, in one place: docs, schemas and checks read them here."""

MAX_INTEGER = 2**53 - 1
LABEL = 64
QUALIFIED = 129
SEQUENCE = 64
PREFIX = 16
PAD = 12
SUBJECT = 200
BODY = 8000
REF = 200
SURFACE = 200
TITLE = 200
DETAIL = 4000
REASON = 500
NOTE = 500
STATUS = 140
SECONDS = 86_400
KEY = 64
POSTS_PER_ACK = 100
PAGE_BYTES = 64_000
"""Of bodies in one page of posts: what an agent reads, it has to hold."""
BLOCKERS = 50
INVITE_USES = 50
INVITE_HOURS = 168
NONCE = 128
