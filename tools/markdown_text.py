"""Pieces of Markdown that the generated pages are made of."""

from collections.abc import Iterable, Sequence

MADE = "<!-- Made by tools/reference.py (`make reference`): don't change it here. -->"


def joined(pieces: Iterable[str]) -> str:
    """A page: its first piece, the note that the page is made, and then the rest, each a block of its own."""
    first, *rest = pieces
    return "\n\n".join([first, MADE, *rest]) + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def cell(text: str) -> str:
    """Text that ends no cell and begins no tag: bars are escaped, also within code (GitHub's rule)."""
    folded = " ".join(text.replace("``", "`").split())
    return folded.replace("|", "\\|").replace("<", "&lt;")
