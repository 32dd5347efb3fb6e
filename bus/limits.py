"""Limits on client input; documentation, tool schemas and validation read them here."""

MAX_INTEGER = 2**53 - 1
MAX_LABEL_LENGTH = 64
MAX_QUALIFIED_NAME_LENGTH = 129
MAX_OWNER_HANDLES = 10
"""Handles that an owner has and had: each stays reserved for it."""
MAX_SEQUENCE_NAME_LENGTH = 64
MAX_PREFIX_LENGTH = 16
MAX_PAD = 12
MAX_FIRST_SEED = 1_000_000_000
"""The highest first seed by a participant that is not project-admin: more could use a sequence up at once."""
MAX_SUBJECT_LENGTH = 200
MAX_BODY_LENGTH = 8000
MAX_REF_LENGTH = 200
MAX_SURFACE_LENGTH = 200
MAX_TITLE_LENGTH = 200
MAX_DETAIL_LENGTH = 4000
MAX_SEARCH_LENGTH = 200
MAX_REASON_LENGTH = 500
MAX_NOTE_LENGTH = 500
MAX_STATUS_LENGTH = 140
MAX_DURATION_SECONDS = 86_400
MAX_IDEMPOTENCY_KEY_LENGTH = 64
MAX_POSTS_PER_ACK = 100
MAX_PAGE_BYTES = 64_000
"""Total size of the texts in one page of posts, leases or tasks: agents keep what they read in their context."""
MAX_WHOLE_BODIES_LENGTH = MAX_BODY_LENGTH
"""Total length up to which the bodies of a list are whole, so that a single body always is."""
MAX_PREVIEW_LENGTH = 200
MIN_PREVIEW_LENGTH = 100
PREVIEW_BUDGET = 5_000
"""Characters of a longer list that its bodies share: each has from 100 to 200."""
MAX_CUT_PAGE_BYTES = 48_000
"""As MAX_PAGE_BYTES, of a list whose bodies may be cut: it has more posts, each with fields beside its texts."""
MAX_BLOCKERS = 50
MAX_BLOCKER_CHAIN = 5_000
"""Open blockers that task_block follows, under the lock that every write of the project waits for."""
MAX_INVITE_USES = 50
MAX_INVITE_HOURS = 720
MAX_NONCE_LENGTH = 128
