"""The manual page and shell completion: made from the command line itself, and tried for real."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import man
from command_line import commands, program

PACKAGES = {"groff": "groff", "man": "man-db", "mandoc": "mandoc"}

SCRIPT = Path(sys.executable).with_name("maskdrop")


def test_the_page_is_what_the_command_line_says_now() -> None:
    assert man.PAGE.read_text(encoding="utf-8") == man.page(), "run `make man`"


def test_every_command_and_option_is_on_the_page() -> None:
    page = man.page().replace("\\-", "-")
    for command in (
        "run",
        "status",
        "batch",
        "check",
        "sheet",
        "replay",
        "doctor",
        "model export",
        "model install",
    ):
        assert f"\n.SS maskdrop {command}" in page
    for option in ("--config", "--dry-run", "--older-than", "--move", "--torch", "--install-completion"):
        assert f"\\fB{option}\\fR" in page
    assert "--help" not in page


def test_no_word_of_the_help_is_taken_for_markup() -> None:
    """What stands in brackets, `--help` leaves out."""
    for command in (program(), *commands()):
        for text in (*command.paragraphs, *(parameter.text for parameter in command.parameters)):
            assert "[" not in text, command.path


@pytest.mark.parametrize(
    "command",
    [["groff", "-man", "-ww", "-z", "-Tutf8"], ["man", "--warnings", "-l"], ["mandoc", "-Tlint", "-Werror"]],
)
def test_the_page_renders_without_warnings(command: list[str]) -> None:
    if shutil.which(command[0]) is None:
        pytest.skip(f"no {command[0]} here: apt-get install {PACKAGES[command[0]]}")
    environment = {**os.environ, "MANPAGER": "cat", "PAGER": "cat", "MANWIDTH": "80", "LC_ALL": "C.UTF-8"}
    done = subprocess.run([*command, str(man.PAGE)], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    if command[0] == "man":
        assert "maskdrop - Drop a photograph into a folder" in done.stdout
        assert "'*.jpg'" in done.stdout


@pytest.mark.skipif(not SCRIPT.exists() or shutil.which("bash") is None, reason="no bash, or not installed")
@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("maskdrop ch", {"check"}),
        ("maskdrop model ex", {"export"}),
        ("maskdrop replay --old", {"--older-than"}),
    ],
)
def test_bash_completes_commands_and_options(words: str, wanted: set[str]) -> None:
    """Bash really reads the script, and asks the function in it."""
    program = (
        'eval "$(_MASKDROP_COMPLETE=source_bash maskdrop)"; '
        f"COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); "
        '_maskdrop_completion maskdrop; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    environment = {**os.environ, "PATH": f"{SCRIPT.parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", program], capture_output=True, text=True, env=environment, timeout=60
    )
    assert set(done.stdout.split()) == wanted, done.stderr
