"""`python -m cli.kit_files`: write the kit's blocks anew from the guide, which they are rendered from."""

from pathlib import Path

import kit
from bus import guide

VARIANTS: tuple[guide.Variant, ...] = ("participant", "lead")


def main() -> None:
    """Write kit/blocks/*.md."""
    folder = Path(kit.__file__).parent / "blocks"
    for variant in VARIANTS:
        (folder / f"{variant}.md").write_text(guide.block(variant), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
