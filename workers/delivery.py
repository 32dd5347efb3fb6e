"""The result of one attempt to deliver a notice."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DeliveryResult:
    """The result of one attempt.

    Attributes:
        detail: the receiver's answer, or what went wrong, in short.
        permanent: the attempt failed, and another would fail too.
        unreachable: the destination did not answer at all, so its other messages would fail too.
    """

    delivered: bool
    detail: str
    permanent: bool = False
    unreachable: bool = False
