"""Types of arguments that several tools take: what a language model reads of them, and their bounds."""

from typing import Annotated

from msgspec import Meta

from bus import limits

SequenceName = Annotated[str, Meta(pattern=r"^[a-z0-9_-]{1,64}$")]
Lane = Annotated[str, Meta(min_length=1, max_length=limits.LABEL)]
Tag = Annotated[str, Meta(min_length=1, max_length=limits.LABEL)]
Label = Annotated[str, Meta(min_length=1, max_length=limits.LABEL)]
Actor = Annotated[str, Meta(min_length=1, max_length=limits.QUALIFIED)]
Ref = Annotated[str, Meta(min_length=1, max_length=limits.REF)]
Note = Annotated[str, Meta(min_length=1, max_length=limits.NOTE)]
Surface = Annotated[str, Meta(min_length=1, description="Repo-relative path or glob")]
Id = Annotated[int, Meta(ge=1, le=limits.MAX_INTEGER)]
Seconds = Annotated[int, Meta(ge=1, le=limits.SECONDS)]
Key = Annotated[str, Meta(min_length=1, max_length=limits.KEY, description="For safe retries")]
BeforeId = Annotated[int, Meta(ge=1, le=limits.MAX_INTEGER)]
BeforeName = Annotated[str, Meta(max_length=limits.QUALIFIED)]
