"""Sign-ins of providers that are linked to an owner."""

import pytest

from bus.auth import identities
from bus.auth.identities import IdentityClaims
from bus.db import Connection
from bus.errors import BusError
from tests import factories

_MAX_IDENTITIES = 20


def _claims(subject: str) -> IdentityClaims:
    return IdentityClaims("https://github.com", subject, None, "ada")


def test_an_identity_is_linked_once_and_to_one_owner(conn: Connection) -> None:
    ada, eve = factories.make_owner(conn, "ada"), factories.make_owner(conn, "eve")
    assert identities.link_identity(conn, ada, _claims("1"))
    assert not identities.link_identity(conn, ada, _claims("1"))
    with pytest.raises(BusError, match="belongs to another account") as refused:
        identities.link_identity(conn, eve, _claims("1"))
    assert refused.value.code == "conflict"
    assert identities.list_identities(conn, eve.id) == []


def test_an_owner_has_at_most_twenty_identities(conn: Connection) -> None:
    ada = factories.make_owner(conn, "ada")
    for number in range(_MAX_IDENTITIES):
        assert identities.link_identity(conn, ada, _claims(str(number)))
    with pytest.raises(BusError, match="unlink one first") as refused:
        identities.link_identity(conn, ada, _claims("one too many"))
    assert refused.value.code == "conflict"
    assert len(identities.list_identities(conn, ada.id)) == _MAX_IDENTITIES
