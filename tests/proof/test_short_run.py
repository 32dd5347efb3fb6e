"""A short run of `make proof`: a real bus under every kind of fault, judged by the checker."""

import pytest

from tests.proof.run import Plan, run


@pytest.mark.exhaustive
@pytest.mark.timeout(900)
def test_no_guarantee_breaks_under_faults() -> None:
    report = run(Plan(5_000, gateway_kills=3, postgres_stops=1, redis_away_seconds=10.0))
    assert report.violations == []
    assert len(report.faults) == 13
    assert report.outcomes["ok"] > 4_000
    assert report.outcomes["unknown"] > 0
