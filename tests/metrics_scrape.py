"""A scrape of a process's metrics, parsed as Prometheus parses it."""

from dataclasses import dataclass

import httpx2
from prometheus_client.parser import text_string_to_metric_families

METRICS_TOKEN = "a-token-of-more-than-sixteen-characters"


@dataclass(frozen=True)
class Scrape:
    """One scrape: every sample by its name and labels."""

    samples: dict[tuple[str, frozenset[tuple[str, str]]], float]

    @property
    def names(self) -> set[str]:
        return {name for name, _ in self.samples}

    def value(self, name: str, **labels: str) -> float:
        return self.samples[name, frozenset(labels.items())]

    def group_by(self, name: str, *labels: str) -> dict[tuple[str, ...], float]:
        """Return the samples of a metric by the values of some labels."""
        return {
            tuple(dict(label_set)[label] for label in labels): value
            for (sample_name, label_set), value in self.samples.items()
            if sample_name == name
        }


def parse(text: str) -> Scrape:
    samples: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
    family_names = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE ")]
    # Each family appears once, also if several parts of the process export it.
    assert len(family_names) == len(set(family_names))
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = sample.name, frozenset(sample.labels.items())
            # Prometheus refuses a scrape with duplicate samples.
            assert key not in samples, key
            samples[key] = sample.value
    return Scrape(samples)


def scrape(base_url: str, token: str | None = METRICS_TOKEN) -> Scrape:
    """Read the metrics of the process at an address."""
    response = httpx2.get(f"{base_url}/metrics", headers={} if token is None else {"Authorization": f"Bearer {token}"})
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/plain")
    return parse(response.text)
