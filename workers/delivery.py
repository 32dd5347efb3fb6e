"""What came of telling somebody something."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DeliveryResult:
    """How an attempt went.

    Attributes:
        said: the receiver's answer, or what went wrong, in short.
        final: it did not go, and trying again would not help.
    """

    delivered: bool
    detail: str
    permanent: bool = False
