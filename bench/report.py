"""The report: tables as text, and all results as JSON."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.scenario import Result, Row
from bench.targets import Target


def render_text(
    machine: dict[str, Any], client_baseline: dict[str, float], results: dict[str, Result], targets: list[Target]
) -> str:
    """Render the report as text."""
    parts = [_format_machine(machine), _format_client_baseline(client_baseline), _format_results(results)]
    parts += [f"{name}: {line}" for name, result in results.items() for line in result.lines]
    parts += [f"\n{format_table(*table)}" for result in results.values() for table in result.tables]
    parts.append(_format_checks(results))
    if targets:
        parts.append(_format_targets(targets))
    return "\n".join(parts)


def write_json(
    path: Path,
    effort: str,
    machine: dict[str, Any],
    client_baseline: dict[str, float],
    results: dict[str, Result],
    targets: list[Target],
) -> None:
    """Write the report as JSON."""
    document = {
        "machine": machine,
        "effort": effort,
        "generator_ceiling": client_baseline,
        "scenarios": {name: dataclasses.asdict(result) for name, result in results.items()},
        "targets": [{**dataclasses.asdict(target), "reached": target.reached} for target in targets],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def format_table(titles: Sequence[str], rows: Sequence[Sequence[str]], left_aligned: int = 1) -> str:
    """Format a table whose first `left_aligned` columns are left-aligned and the others right-aligned."""
    cells = [list(titles), *(list(row) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(titles))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if number < left_aligned else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    )


def _format_machine(machine: dict[str, Any]) -> str:
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB; {machine['system']};"
        f" Python {machine['python']}, PostgreSQL {machine['postgresql']}; a forced write takes"
        f" {machine['fdatasync_us']} us; load at the start: {machine['load_at_start']}"
    )


def _format_client_baseline(client_baseline: dict[str, float]) -> str:
    return (
        "Ceiling of the generator against a trivial server:"
        f" {client_baseline['calls_per_second']:.0f} calls per second,"
        f" {client_baseline['generator_us_per_call']:.0f} us of CPU per call.\n"
    )


def _format_results(results: dict[str, Result]) -> str:
    titles = ("scenario", "variant", "conns", "calls/s", "spread", "p50 ms", "p95", "p99", "max")
    cpu_titles = ("gateway us", "postgres us", "client us", "other cores")
    rows = [
        _format_row(row, row.scenario if number == 0 else "")
        for result in results.values()
        for number, row in enumerate(result.rows)
    ]
    if not rows:
        return ""
    return format_table((*titles, *cpu_titles), rows, left_aligned=2) + "\n"


def _format_row(row: Row, scenario_label: str) -> list[str]:
    latency, used = row.latency, row.cpu
    client = used.get("generator", used.get("client", 0.0))
    return [
        scenario_label,
        row.variant,
        str(row.connections),
        f"{row.rate:.0f}",
        f"{row.spread:.0%}",
        *(f"{value:.1f}" for value in (latency.p50, latency.p95, latency.p99, latency.max)),
        f"{used['gateway']:.0f}" if "gateway" in used else "-",
        f"{used.get('postgres', 0.0):.0f}",
        f"{client:.0f}",
        f"{row.others:.1f}",
    ]


def _format_checks(results: dict[str, Result]) -> str:
    lines = [f"  {name}: {'; '.join(result.checked)}" for name, result in results.items() if result.checked]
    return "\n".join(["", "Verified against the database:", *lines])


def _format_targets(targets: list[Target]) -> str:
    rows = [
        [
            target.name,
            "reached" if target.reached else "MISSED",
            f"{'<=' if target.at_most else '>='} {target.limit:g}",
            f"{target.value:.3g}",
            target.detail,
        ]
        for target in targets
    ]
    titles = ["target", "", "limit", "value", ""]
    widths = [max(len(row[column]) for row in [titles, *rows]) for column in range(4)]
    lines = [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[4]]).rstrip()
        for row in [titles, *rows]
    ]
    return "\n".join(["", *lines])
