"""`python -m cli.kit_files`: render the kit's instruction blocks from the agent guide."""

from pathlib import Path

import kit
from bus import agent_guide

BLOCK_VARIANTS: tuple[agent_guide.GuideVariant, ...] = ("participant", "lead")


def main() -> None:
    """Write kit/blocks/*.md."""
    folder = Path(kit.__file__).parent / "blocks"
    for variant in BLOCK_VARIANTS:
        (folder / f"{variant}.md").write_text(
            agent_guide.repository_instructions(variant), encoding="utf-8", newline="\n"
        )


if __name__ == "__main__":
    main()
