"""`python -m cli.kit_files`: render the kit's instruction blocks from the agent guide."""

from pathlib import Path

import kit
from bus import agent_guide

BLOCK_VARIANTS: tuple[agent_guide.GuideVariant, ...] = ("participant", "lead")
# Without the rules for clients whose model is sent those of the server.
BLOCK_SUFFIXES = {"": True, "-short": False}


def main() -> None:
    """Write kit/blocks/*.md."""
    folder = Path(kit.__file__).parent / "blocks"
    for variant in BLOCK_VARIANTS:
        for suffix, has_rules in BLOCK_SUFFIXES.items():
            text = agent_guide.repository_instructions(variant, has_rules=has_rules)
            (folder / f"{variant}{suffix}.md").write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
