"""`context`: bytes in an agent's context, compared with the budget and the original service."""

from bench import context_size
from bench.scenario import Harness, Result


def run(harness: Harness) -> Result:
    """Measure the texts of a session and the results of each tool, and compare them with the budget."""
    result = Result()
    sizes = context_size.measure_context_sizes(harness.environment.database, harness.environment.addresses[0])
    budget = context_size.load_budget()
    result.figures |= {"initial": sizes.initial, "typical": sizes.typical, "largest": sizes.largest}
    result.figures["over_budget"] = sorted(
        name for name, size in sizes.as_budget().items() if size > budget.get(name, 0)
    )
    original_sizes = {
        **context_size.ORIGINAL_SIZES,
        "tools/list of a project-admin": context_size.ORIGINAL_SIZES["tools/list"],
    }
    result.tables.append(
        (
            ["in an agent's context", "bytes", "budget", "original"],
            [
                [
                    name,
                    f"{size:,}",
                    f"{budget.get(name, 0):,}",
                    f"{original_sizes[name]:,}" if name in original_sizes else "",
                ]
                for name, size in sizes.initial.items()
            ],
        )
    )
    result.tables.append(
        (
            ["results of tools", "typical", "largest"],
            [
                [tool, f"{sizes.typical[tool]:,}" if tool in sizes.typical else "", f"{sizes.largest.get(tool, 0):,}"]
                for tool in sorted(sizes.typical.keys() | sizes.largest.keys())
            ],
        )
    )
    return result
