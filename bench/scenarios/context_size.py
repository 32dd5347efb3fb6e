"""`context`: bytes of what an agent is told and answered, beside the budget and the original's figures."""

from bench import context_size
from bench.scenario import Harness, Result


def run(harness: Harness) -> Result:
    """Measure, and compare with the budget of the repository."""
    result = Result()
    sizes = context_size.measure_context_sizes(harness.environment.database, harness.environment.addresses[0])
    budget = context_size.load_budget()
    result.figures |= {"told": sizes.initial, "usual": sizes.typical, "largest": sizes.largest}
    result.figures["over_budget"] = sorted(
        name for name, size in sizes.as_budget().items() if size > budget.get(name, 0)
    )
    originals = {
        **context_size.ORIGINAL_SIZES,
        "tools/list of a project-admin": context_size.ORIGINAL_SIZES["tools/list"],
    }
    result.tables.append(
        (
            ["in an agent's context", "bytes", "budget", "original"],
            [
                [name, f"{size:,}", f"{budget.get(name, 0):,}", f"{originals[name]:,}" if name in originals else ""]
                for name, size in sizes.initial.items()
            ],
        )
    )
    result.tables.append(
        (
            ["answers of tools", "usual", "largest"],
            [
                [tool, f"{sizes.typical[tool]:,}" if tool in sizes.typical else "", f"{sizes.largest.get(tool, 0):,}"]
                for tool in sorted(sizes.typical.keys() | sizes.largest.keys())
            ],
        )
    )
    return result
