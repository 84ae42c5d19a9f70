"""The reference: made from the code, and whole."""

import re
from pathlib import Path

import pytest

import reference
from command_line import commands
from maskdrop import exit_codes
from maskdrop.config import Settings
from maskdrop.events import Event
from reference_configuration import kind


@pytest.mark.parametrize("name", reference.PAGES)
def test_each_page_is_what_the_code_says_now(name: str) -> None:
    assert (reference.FOLDER / name).read_text(encoding="utf-8") == reference.PAGES[name](), (
        "run `make reference`"
    )


def test_no_page_is_written_by_hand() -> None:
    assert {path.name for path in reference.FOLDER.iterdir()} == set(reference.PAGES)


def test_every_command_key_event_and_code_is_there() -> None:
    pages = {name: page() for name, page in reference.PAGES.items()}
    for command in commands():
        assert f"\n## {command.path}\n" in pages["command-line.md"]
    for option in ("--config", "--dry-run", "--older-than", "--nagios", "--install-completion"):
        assert f"`{option}`" in pages["command-line.md"]
    keys = re.findall(r"^\| `(\w+\.\w+)` \|", pages["configuration.md"], re.MULTILINE)
    sections = {name: field.annotation for name, field in Settings.model_fields.items()}
    assert keys == [
        f"{name}.{key}"
        for name, section in sections.items()
        for key in section.model_fields  # type: ignore[union-attr]
    ]
    for event in Event:
        assert f"\n## {event.name.lower()}\n" in pages["journal-events.md"]
        assert event.value in pages["journal-events.md"]
    for name in vars(exit_codes):
        if name.startswith("EX_"):
            assert f"| `{name}` |" in pages["exit-codes.md"]
    for method in ("Parser.parse", "Parsed.mask", "Parsed.masks", "Parsed.image"):
        assert f"\n### {method}\n" in pages["python-classes.md"]


def test_keys_are_told_with_bounds_defaults_and_whom_a_reload_replaces() -> None:
    page = (reference.FOLDER / "configuration.md").read_text(encoding="utf-8")
    rows = {
        line.split("`")[1]: [cell.strip() for cell in line.strip("| ").split(" | ")][1:]
        for line in page.splitlines()
        if line.startswith("| `")
    }
    assert rows["save.quality"][:2] == ["whole number 1 to 100", "`95`"]
    assert rows["model.deviation"][0] == "list of 3: number above 0, to 1,000"
    assert rows["save.format"][0] == '"jpeg", "png", "webp"'
    assert rows["metrics.port"][1] == "-"
    whom = {key: cells[-1] for key, cells in rows.items()}
    assert (whom["save.quality"], whom["decode.draft"]) == ("save", "preprocess, save")
    assert (whom["watch.settle_ms"], whom["model.weights"]) == ("-", "all")


def test_a_kind_without_words_is_told() -> None:
    with pytest.raises(ValueError, match="no words for"):
        kind({"type": "null"}, {})


def test_made_in_a_folder_of_ones_own(tmp_path: Path) -> None:
    reference.write(tmp_path / "new")
    assert {path.name for path in (tmp_path / "new").iterdir()} == set(reference.PAGES)
