"""Two tenants with the same names and numbers: results agree with a model, and neither sees or changes the other."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from bus.db import Database
from bus.tables import metadata
from tests.proof.isolation import coverage, fingerprints
from tests.proof.isolation.beginning import TOOL_MODELS
from tests.proof.isolation.bus_calls import TOOLS
from tests.proof.isolation.leaks import LEAKS, planted
from tests.proof.isolation.run import TwoTenants, run

_EXHAUSTIVE_EXAMPLES = 1_000
_EXAMPLES_TO_FIND_A_LEAK = 300


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    with closing(Database(database_url, pool_size=2)) as opened:
        yield opened


def test_two_tenants_agree_with_the_model(database: Database) -> None:
    """The same calls each time; `python -m tests.proof.isolation` draws new ones."""
    assert run(database, 8, is_new=False, steps=25).steps > 60


@pytest.mark.exhaustive
@pytest.mark.timeout(3600)
def test_two_tenants_agree_with_the_model_in_new_runs(database: Database) -> None:
    summary = run(database, _EXHAUSTIVE_EXAMPLES)
    assert {name.removeprefix("tool ") for name in summary.counts if name.startswith("tool ")} == TOOLS.keys()
    acts = {name.removeprefix("act ") for name in summary.counts if name.startswith("act ")}
    assert acts == coverage.list_acts_with_rules()


@pytest.mark.exhaustive
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", LEAKS)
def test_a_planted_leak_is_found(database: Database, name: str) -> None:
    with planted(name, database), pytest.raises(Exception):  # noqa: B017, PT011 - any failure shows it
        run(database, _EXAMPLES_TO_FIND_A_LEAK, shrink=False)


def test_every_tool_has_a_model_and_a_rule() -> None:
    assert TOOLS.keys() == TOOL_MODELS.keys()
    assert {name for name in TOOLS if not hasattr(TwoTenants, f"tool_{name}")} == set()


def test_every_act_of_the_web_has_a_rule() -> None:
    acts = coverage.list_acts()
    assert coverage.EXEMPT.keys() <= acts
    names = {act.split(".", 2)[2] for act in acts - coverage.EXEMPT.keys()}
    assert names <= coverage.list_acts_with_rules()
    assert len(names) > 30


def test_every_table_is_assigned_to_a_tenant_or_to_the_service() -> None:
    assert fingerprints.find_unassigned_tables() == set()
    assert metadata.tables.keys() >= fingerprints.GLOBAL_TABLES
