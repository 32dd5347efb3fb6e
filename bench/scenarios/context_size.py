"""`context`: bytes of what an agent is told and answered, beside the budget and the original's figures."""

from bench import context_size
from bench.scenario import Result, Stage


def run(stage: Stage) -> Result:
    """Measure, and compare with the budget of the repository."""
    result = Result()
    sizes = context_size.measure(stage.bed.database, stage.bed.addresses[0])
    budget = context_size.budget()
    result.figures |= {"told": sizes.told, "usual": sizes.usual, "largest": sizes.largest}
    result.figures["over_budget"] = sorted(name for name, size in sizes.flat().items() if size > budget.get(name, 0))
    originals = {**context_size.ORIGINAL, "tools/list of a project-admin": context_size.ORIGINAL["tools/list"]}
    result.tables.append(
        (
            ["in an agent's context", "bytes", "budget", "original"],
            [
                [name, f"{size:,}", f"{budget.get(name, 0):,}", f"{originals[name]:,}" if name in originals else ""]
                for name, size in sizes.told.items()
            ],
        )
    )
    result.tables.append(
        (
            ["answers of tools", "usual", "largest"],
            [
                [tool, f"{sizes.usual[tool]:,}" if tool in sizes.usual else "", f"{sizes.largest.get(tool, 0):,}"]
                for tool in sorted(sizes.usual.keys() | sizes.largest.keys())
            ],
        )
    )
    return result
