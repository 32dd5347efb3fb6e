"""What Prometheus reads: scraped from a process, and parsed as Prometheus does."""

from dataclasses import dataclass

import httpx2
from prometheus_client.parser import text_string_to_metric_families

METRICS_TOKEN = "a-token-of-more-than-sixteen-characters"


@dataclass(frozen=True)
class Scrape:
    """One answer: every sample by its name and labels."""

    samples: dict[tuple[str, frozenset[tuple[str, str]]], float]

    @property
    def names(self) -> set[str]:
        return {name for name, _ in self.samples}

    def value(self, name: str, **labels: str) -> float:
        return self.samples[name, frozenset(labels.items())]

    def group_by(self, name: str, *labels: str) -> dict[tuple[str, ...], float]:
        """The samples of a name by the values of some labels."""
        return {
            tuple(dict(found)[label] for label in labels): value
            for (one, found), value in self.samples.items()
            if one == name
        }


def parse(text: str) -> Scrape:
    samples: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
    described = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE ")]
    # What two parts of a process show under one name stands together.
    assert len(described) == len(set(described))
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = sample.name, frozenset(sample.labels.items())
            # Prometheus refuses a scrape that says something twice.
            assert key not in samples, key
            samples[key] = sample.value
    return Scrape(samples)


def scrape(base_url: str, token: str | None = METRICS_TOKEN) -> Scrape:
    """Read the metrics of the process behind an address."""
    answer = httpx2.get(f"{base_url}/metrics", headers={} if token is None else {"Authorization": f"Bearer {token}"})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/plain")
    return parse(answer.text)
