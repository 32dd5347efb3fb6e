"""Fixtures of the tests of tenancy."""

import pytest

from bus.db import Connection
from bus.tenancy import owner_participation
from tests import factories
from tests.bus.tenancy.project_team import Team


@pytest.fixture
def team(conn: Connection) -> Team:
    ada = factories.make_owner(conn, "ada")
    project = factories.make_project(conn, "apollo", ada)
    owner_participation.get_or_create_owner_context(conn, ada.id, project.id)
    adas = factories.make_agent(conn, project, "claude-1")
    bob = factories.make_member(conn, project, "member", "bob")
    bobs = factories.make_member_agent(conn, project, bob, "claude-1")
    return Team(conn, ada, bob, project, adas, bobs)
