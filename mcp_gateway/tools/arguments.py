"""Types of the arguments that several tools share, with their bounds and their descriptions for language models."""

from typing import Annotated

from msgspec import Meta

from bus import limits

SequenceName = Annotated[str, Meta(pattern=r"^[a-z0-9_-]{1,64}$")]
Lane = Annotated[str, Meta(min_length=1, max_length=limits.MAX_LABEL_LENGTH)]
Tag = Annotated[str, Meta(min_length=1, max_length=limits.MAX_LABEL_LENGTH)]
Label = Annotated[str, Meta(min_length=1, max_length=limits.MAX_LABEL_LENGTH)]
Actor = Annotated[str, Meta(min_length=1, max_length=limits.MAX_QUALIFIED_NAME_LENGTH)]
Ref = Annotated[str, Meta(min_length=1, max_length=limits.MAX_REF_LENGTH)]
SearchText = Annotated[str, Meta(min_length=1, max_length=limits.MAX_SEARCH_LENGTH, description='Words; "a phrase"')]
Note = Annotated[str, Meta(min_length=1, max_length=limits.MAX_NOTE_LENGTH)]
Surface = Annotated[str, Meta(min_length=1)]
LeasedSurface = Annotated[str, Meta(min_length=1, description="Repo-relative path or glob")]
Id = Annotated[int, Meta(ge=1, le=limits.MAX_INTEGER)]
Seconds = Annotated[int, Meta(ge=1, le=limits.MAX_DURATION_SECONDS)]
IdempotencyKey = Annotated[str, Meta(min_length=1, max_length=limits.MAX_IDEMPOTENCY_KEY_LENGTH)]
BeforeId = Annotated[int, Meta(ge=1, le=limits.MAX_INTEGER)]
BeforeName = Annotated[str, Meta(max_length=limits.MAX_QUALIFIED_NAME_LENGTH)]
