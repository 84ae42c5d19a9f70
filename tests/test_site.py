"""The documentation as a whole: each page in its place, no link leads nowhere, the site is built for real."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]

needs_mkdocs = pytest.mark.skipif(
    importlib.util.find_spec("mkdocs") is None, reason="needs MkDocs: pip install 'maskdrop[docs]'"
)


def prose(page: Path) -> str:
    """A page without its code."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]*`", "code", text)


def anchors(page: Path) -> set[str]:
    """What headings can be reached by, as MkDocs and GitHub make it."""
    fenced = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)$", fenced, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def links(page: Path) -> Iterator[str]:
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if not re.match(r"[a-z]+:", link):
            yield link


def where_it_leads_nowhere(page: Path) -> list[str]:
    wrong = []
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            wrong.append(f"{page.relative_to(page.anchor)}: {link}")
    return wrong


def test_every_link_leads_somewhere() -> None:
    assert [wrong for page in PAGES for wrong in where_it_leads_nowhere(page)] == []
    assert sum(len(list(links(page))) for page in PAGES) > 80


def test_a_link_that_leads_nowhere_is_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Here\n\n[a](#here) [b](#there) [c](gone.md) [d](page.md#here)\n\n```sh\n[e](f)\n```\n")
    assert [wrong.split(": ")[1] for wrong in where_it_leads_nowhere(page)] == ["#there", "gone.md"]


def build(folder: Path, target: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(target)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment, timeout=200)


@needs_mkdocs
def test_the_site_is_built_and_fetches_nothing_from_elsewhere(tmp_path: Path) -> None:
    built = build(ROOT, tmp_path / "site")
    assert built.returncode == 0, built.stderr
    site = tmp_path / "site"
    for page in DOCS.rglob("*.md"):
        assert (site / page.relative_to(DOCS).with_suffix(".html")).exists()
    front = (site / "index.html").read_text(encoding="utf-8")
    assert not re.findall(r'(?:src|rel="stylesheet" href)="(?:https?:)?//', front)
    assert (site / "repository" / "etc" / "maskdrop.toml").read_text() == (
        ROOT / "etc" / "maskdrop.toml"
    ).read_text()
    assert "AF_(INET|INET6)</code>" in (site / "service.html").read_text(encoding="utf-8")
    assert 'href="repository/etc/maskdrop.toml"' in (site / "outputs.html").read_text(encoding="utf-8")


@needs_mkdocs
@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("stray.md", "# Stray\n", "not included in the"),
        ("check.md", "# Check\n\n[a](batch.md#nowhere)\n", "does not contain an anchor '#nowhere'"),
        ("check.md", "# Check\n\n[a](../etc/none.toml)\n", "leads to etc/none.toml, which is no file"),
    ],
)
def test_a_page_out_of_place_and_a_wrong_link_end_the_build(
    tmp_path: Path, name: str, content: str, told: str
) -> None:
    for folder in ("docs", "etc", "systemd", "tools"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(ROOT / "mkdocs.yml", tmp_path / "mkdocs.yml")
    (tmp_path / "docs" / name).write_text(content)
    built = build(tmp_path, tmp_path / "site")
    assert built.returncode != 0
    assert told in built.stderr
