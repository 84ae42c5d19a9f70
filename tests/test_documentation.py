"""Every command in README and documents is run, in order and for real, or it is told why not and where."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

import test_man
from booted import machine
from command_line import commands, program
from container import podman
from documented import CTRL_C, ROOT, Command, blocks, commands_of, pages, shows, spoken
from documented_elsewhere import ELSEWHERE
from documented_pages import PREPARATIONS
from maskdrop.config_file import load_settings
from reader import Reader

EVERY = {str(page.relative_to(ROOT)): commands_of(page) for page in pages()}
SETTINGS = [(page.name, toml) for page in pages() for toml in blocks(page, "toml")]

BY_MAKE = {"util-linux", "libsystemd-dev"}
"""Debian packages that are everywhere, or that `make test` installs itself."""

RUN_HERE = {
    page: [command for command in found if command.text not in ELSEWHERE] for page, found in EVERY.items()
}


def follow(reader: Reader, found: list[Command]) -> None:
    """Do all that is to be done here, and end what is still running."""
    for command in found:
        reader.do(command)
    reader.press_ctrl_c()


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    reader = Reader(tmp_path)
    yield reader
    reader.close()


@pytest.mark.parametrize("page", [page for page, found in RUN_HERE.items() if found])
def test_what_the_page_says_can_be_done(page: str, reader: Reader, tiny_weights: Path) -> None:
    needed = PREPARATIONS.get(page)
    if needed is not None:
        needed.prepare(reader, tiny_weights)
    follow(reader, RUN_HERE[page])
    for path in needed.leaves if needed else ():
        assert (reader.home / path).exists(), f"{page} leaves no {path}"
    if reader.missing:
        pytest.skip(f"all is run but what needs {', '.join(sorted(reader.missing))}")


def test_what_is_run_elsewhere_is_still_documented_and_really_run_there() -> None:
    said = {command.text for found in EVERY.values() for command in found}
    assert set(ELSEWHERE) <= said, "not in any page any more"
    for text, elsewhere in ELSEWHERE.items():
        assert elsewhere.why
        if not elsewhere.test:
            continue
        file, _, name = elsewhere.test.partition("::")
        source = (ROOT / file).read_text(encoding="utf-8")
        assert f"\ndef {name}(" in source, f"{text}: no test {elsewhere.test}"
        assert elsewhere.words or "commands_for(" in source or "docs" in source, text
        for word in elsewhere.words:
            assert word in source, f"{text}: {word} is not in {file}"


def test_programs_that_are_too_long_to_run_are_there_and_know_their_options() -> None:
    for text in ELSEWHERE:
        words = shlex.split(text)
        if words[0] == "python":
            source = (ROOT / words[1]).read_text(encoding="utf-8")
            for option in (word for word in words if word.startswith("--")):
                assert f'"{option}"' in source, text


def test_commands_in_prose_are_there_with_their_options() -> None:
    known = {command.path: command for command in commands()}
    options = {path: {n for p in c.parameters for n in p.names} for path, c in known.items()}
    first = {name for parameter in program().parameters for name in parameter.names}
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in pages():
        for code in spoken(page):
            where, words = f"{page.name}: {code}", code.split()
            if words[0] == "make":
                assert set(words[1:2]) <= targets, where
            elif words[0] == "python":
                assert (ROOT / words[1]).is_file(), where
            else:
                told = [path for path in known if f"{code} ".startswith(f"{path} ")]
                group = any(path.startswith(" ".join(words[:2]) + " ") for path in known)
                assert told or group or words[1] in first, where
                for word in (word for word in words if word.startswith("--")):
                    assert word.rstrip(",.") in (options[told[-1]] if told else first), where


@pytest.mark.parametrize(("page", "toml"), SETTINGS)
def test_settings_that_are_shown_can_be_used(page: str, toml: str, tmp_path: Path) -> None:
    file = tmp_path / "shown.toml"
    file.write_text(toml)
    settings = load_settings(file, {"folders": {"inbox": tmp_path / "in", "outbox": tmp_path / "out"}})
    assert settings.model_dump(exclude_unset=True).keys() > {"folders"}


def test_the_readme_names_what_tests_are_skipped_without() -> None:
    """Each Debian package that a test asks for when it is skipped."""
    asked = {*machine.PROGRAMS.values(), *podman.PROGRAMS.values(), *test_man.PACKAGES.values()}
    asked -= {"util-linux"}
    sources = [*(ROOT / "tests").rglob("*.py"), ROOT / "tools" / "browser.py"]
    for source in sources:
        for packages in re.findall(r"[:`] ?\"?apt-get install ([a-z0-9 -]+)", source.read_text()):
            asked |= set(packages.split())
    readme = (ROOT / "README.md").read_text()
    section = readme.partition("\n## Tests\n")[2].partition("\n## ")[0]
    (install,) = re.findall(r"^sudo apt-get install (.*)$", section, re.MULTILINE)
    rows = [row for row in section.splitlines() if row.startswith("| ")]
    named = {word for row in rows for word in re.findall(r"[a-z][a-z0-9-]+", row.split("|")[1])}
    assert asked - named - BY_MAKE == set(), "README's table doesn't name them"
    assert set(install.split()) <= asked
    assert asked - set(install.split()) - BY_MAKE <= {"dpkg", "systemd"}


GOOD = """# A page

```sh
mkdir -p faces && \\
    touch faces/a        # made
maskdrop version
```

```console
$ ls faces
a
$ maskdrop version
maskdrop …
```
"""


def test_a_page_that_is_right_can_be_followed(reader: Reader, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(GOOD)
    found = commands_of(page)
    assert [command.text for command in found] == [
        "mkdir -p faces && touch faces/a",
        "maskdrop version",
        "ls faces",
        "maskdrop version",
    ]
    follow(reader, found[:3])


@pytest.mark.parametrize(
    ("right", "wrong", "told"),
    [
        ("maskdrop version\n```", "maskdrop version --short\n```", "No such option"),
        ("touch faces/a", "touch face/a", "No such file or directory"),
        ("mkdir", "make-dir", "command not found"),
        ("\na\n", "\nb\n", "but it is:\na"),
        ("$ ls faces", "$ rm -v faces/a", "only looking can be shown"),
        ("maskdrop version\n```", "make nothing\n```", "No rule to make target"),
        ("maskdrop version\n```", "maskdrop run --inbox faces/a --outbox out\n```", "ended with 78"),
    ],
)
def test_a_wrong_command_is_seen(reader: Reader, tmp_path: Path, right: str, wrong: str, told: str) -> None:
    assert right in GOOD
    page = tmp_path / "page.md"
    page.write_text(GOOD.replace(right, wrong, 1))
    reader.patience_s = 0.5
    with pytest.raises(AssertionError, match=re.escape(told)):
        follow(reader, commands_of(page))


@pytest.mark.parametrize("text", ["# A\n\n    maskdrop version\n", "# A\n\n```\nmaskdrop version\n```\n"])
def test_commands_cannot_be_hidden_from_the_test(tmp_path: Path, text: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(ValueError, match="code"):
        commands_of(page)


def test_keys_are_pressed_and_dots_stand_for_anything(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A\n\nPress Ctrl-C in the first terminal.\n")
    assert [command.text for command in commands_of(page)] == [CTRL_C]
    assert shows(("a  …", "c"), "a b\nc\n")
    assert not shows(("a …", "c"), "a b\nd\n")
