"""The commands that README and documentation show, as their readers would type them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent

CTRL_C = "Ctrl-C"
"""Stands for the key, where the prose says to press it."""

LANGUAGES = ("sh", "console", "text", "python", "toml", "json", "yaml", "ini", "dockerfile")
"""What code blocks may be in: commands are in the first two alone."""

_REMEDY = f"put it between ``` and ```, and say which it is: {', '.join(LANGUAGES)}"
_FENCE = re.compile(r"```(\w*)")
_COMMENT = re.compile(r"\s+# .*$")


@dataclass(frozen=True)
class Command:
    """One command of a page.

    Attributes:
        page: its path in the repository.
        line: where it stands there.
        text: without the comment behind it, on one line.
        shown: what a console block shows below it; None elsewhere.
    """

    page: str
    line: int
    text: str
    shown: tuple[str, ...] | None = None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {self.text}"


def pages() -> list[Path]:
    """README, and all documents."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def commands_of(page: Path) -> list[Command]:
    """All commands in the page's code blocks ``sh`` and ``console``, in order.

    Raises:
        ValueError: code stands indented, or in a block that doesn't say what it is, where a command would
            be overlooked.
    """
    name = str(page.relative_to(ROOT)) if page.is_relative_to(ROOT) else page.name
    lines = page.read_text(encoding="utf-8").splitlines()
    found: list[Command] = []
    language: str | None = None
    for number, line in enumerate(lines, 1):
        fence = _FENCE.match(line)
        if fence and language is not None:
            language = None
        elif fence:
            language = fence[1]
            if language not in LANGUAGES:
                raise ValueError(f"{name}:{number}: code in {language or 'no language'}; {_REMEDY}")
        elif language is None:
            if line.startswith("    ") and not lines[number - 2].strip():
                raise ValueError(f"{name}:{number}: indented code; {_REMEDY}")
            if "Press Ctrl-C" in line:
                found.append(Command(name, number, CTRL_C))
        elif language == "sh":
            _note(found, name, number, line)
        elif language == "console":
            _note_console(found, name, number, line)
    return found


def _note(found: list[Command], page: str, number: int, line: str) -> None:
    text = _COMMENT.sub("", line.strip())
    if found and found[-1].text.endswith("\\"):
        before = found.pop()
        found.append(Command(page, before.line, f"{before.text[:-1].rstrip()} {text}"))
    elif text and not text.startswith("#"):
        found.append(Command(page, number, text))


def _note_console(found: list[Command], page: str, number: int, line: str) -> None:
    if line.startswith("$ "):
        found.append(Command(page, number, line[2:].strip(), ()))
    else:
        last = found.pop()
        found.append(Command(page, last.line, last.text, (*(last.shown or ()), line)))


def shows(shown: tuple[str, ...], output: str) -> bool:
    """Whether output is what a page shows of it: blanks count as one, ``…`` stands for anything."""
    wanted = re.escape(_folded("\n".join(shown))).replace("…", ".*")
    return re.fullmatch(wanted, _folded(output), re.DOTALL) is not None


def _folded(text: str) -> str:
    return " ".join(text.split())


def blocks(page: Path, language: str) -> list[str]:
    """The page's code blocks in a language."""
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def spoken(page: Path) -> Iterator[str]:
    """Code in the page's prose that begins with a program of ours: ``maskdrop``, ``make``, ``python``."""
    prose = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for code in re.findall(r"`([^`]+)`", prose):
        if re.match(r"(maskdrop|make|python) ", code):
            yield " ".join(code.split())
