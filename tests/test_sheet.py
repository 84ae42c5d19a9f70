"""`maskdrop sheet`: the real command on real results, and the page in a real browser."""

import base64
import hashlib
import json
import os
import re
import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

import browser
from drawing import face_bytes
from maskdrop.results.provenance import provenance
from running import QUICK, maskdrop

if TYPE_CHECKING:
    from playwright.sync_api import Browser

OUTPUTS = '[save]\noutputs = ["face", "model", "cutout", "labels", "overlay", "json"]\n'

HOSTILE = (
    b'" onload="document.title=1" b=".jpg',
    b"<img src=x onerror=document.title='owned'>.jpg",
    b"<svg onload=document.title='owned'>\n&amp;'\".png",
    b"sub/not-utf-8-\xff\xfe <b>bold<!--.jpg",
)


class Tags(HTMLParser):
    """Every tag of a page with its attributes, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, tiny_weights: Path) -> Path:
    """An outbox and a quarantine filled by a batch, of pictures with hostile names and contents."""
    base = tmp_path_factory.mktemp("sheet")
    for index, name in enumerate([b"plain.jpg", b"other.webp", *HOSTILE]):
        path = base / "archive" / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        form = {".jpg": "JPEG", ".png": "PNG", ".webp": "WEBP"}[path.suffix]
        path.write_bytes(face_bytes(index, form, 600, 800))
    (base / "archive" / "<script>alert(1)<.jpg").write_bytes(b"no picture")
    (base / "archive" / "half.jpg").write_bytes(face_bytes(1)[:2000])
    (base / "maskdrop.toml").write_text(QUICK + OUTPUTS)
    folders = [str(base / "archive"), str(base / "outbox"), "--quarantine", str(base / "quarantine")]
    weights = ["--config", str(base / "maskdrop.toml"), "--weights", str(tiny_weights)]
    done = maskdrop(["batch", *folders, *weights])
    assert done.returncode == 1, done.stderr
    # Made to look like a reason, and like a result.
    reason = base / "quarantine" / "half.jpg.reason.json"
    reason.write_text(reason.read_text().replace("truncated", "truncated <i onclick=alert(1)>"))
    (base / "outbox" / "foreign.jpg").write_bytes(face_bytes(9))
    (base / "outbox" / "garbage.png").write_bytes(b"\x89PNG garbage")
    return base


def sheet(base: Path, *arguments: str, code: int = 0) -> "subprocess.CompletedProcess[str]":
    done = maskdrop(["sheet", str(base / "outbox"), *arguments])
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


def test_everything_is_on_the_page_escaped_and_nothing_from_elsewhere(base: Path, tmp_path: Path) -> None:
    target = tmp_path / "sheet"
    done = sheet(base, "--output", str(target))
    assert done.stdout.splitlines() == [str(target / "index.html"), str(target / "sheet.png")]
    assert done.stderr == "6 pictures, 2 from quarantine\n"
    html = (target / "index.html").read_text()
    tags = Tags(html)
    assert len(tags.all("article")) == 8
    assert {name for name, _ in tags.tags} == {
        *("html", "head", "meta", "title", "style", "body", "header", "h1", "h2", "span", "form", "input"),
        *("select", "option", "label", "main", "article", "p", "div", "figure", "a", "img", "figcaption"),
        *("dialog", "button", "script"),
    }  # nothing that a name brought along
    assert len(tags.all("script")) == 1
    script = html.partition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = [meta["content"] or "" for meta in tags.all("meta") if "http-equiv" in meta]
    assert {"default-src 'none'", f"script-src 'sha256-{digest}'"} <= set(policy.split("; "))
    assert not [key for _, attributes in tags.tags for key in attributes if key.startswith("on")]
    shown = [attributes["data-kind"] for attributes in tags.all("figure")]
    assert {kind: shown.count(kind) for kind in set(shown)} == dict.fromkeys(
        ["original", "labels", "overlay", "face", "cutout", "model"], 6
    )
    linked = {attributes["src"] for attributes in tags.all("img") if "src" in attributes}
    assert linked == {attributes["href"] for attributes in tags.all("a")}
    assert linked == {f"pictures/{path.name}" for path in (target / "pictures").iterdir()}
    assert not re.search(r"https?:|//[a-z]", html)
    for path in (target / "pictures").iterdir():
        with Image.open(path) as image:
            image.load()
            assert max(image.size) <= 512
    assert "sub/not-utf-8-\\xff\\xfe <b>bold<!--" in tags.text
    assert "preprocess: UnidentifiedImageError: not a picture of a format" in tags.text
    assert "truncated <i onclick=alert(1)>" in tags.text
    assert "foreign" not in tags.text
    with Image.open(target / "sheet.png") as image:
        image.load()
        assert image.width % (6 * 128) == 0
        assert image.width * image.height >= 5 * (6 * 128) * (128 + 18)


def test_the_newest_are_shown_and_an_older_sheet_is_replaced(base: Path, tmp_path: Path) -> None:
    target = tmp_path / "sheet"
    sheet(base, "--output", str(target))
    before = {path.name for path in (target / "pictures").iterdir()}
    newest = base / "outbox" / "plain.jpg"
    ahead = newest.stat().st_mtime + 1000
    os.utime(newest, (ahead, ahead))
    for mine in ("mine.txt", "mine.webp"):
        (target / "pictures" / mine).write_text("left alone")
    sheet(base, "--output", str(target), "--last", "1", "--originals", str(base / "outbox"))
    tags = Tags((target / "index.html").read_text())
    assert len(tags.all("article")) == 2
    assert "plain" in tags.text
    # A file of that name is no original unless its content is the one the results were made from.
    assert "original" not in [attributes["data-kind"] for attributes in tags.all("figure")]
    # What the page showed that was replaced is still there, for whoever has it open; then it goes.
    assert {path.name for path in (target / "pictures").iterdir()} == {*before, "mine.txt", "mine.webp"}
    sheet(base, "--output", str(target), "--last", "1", "--originals", str(base / "outbox"))
    after = {path.name for path in (target / "pictures").iterdir()}
    assert {"mine.txt", "mine.webp"} < after
    assert after - {"mine.txt", "mine.webp"} < before


def test_one_that_was_interrupted_is_begun_anew(base: Path, tmp_path: Path) -> None:
    target = tmp_path / "sheet"
    sheet(base, "--output", str(target))
    (target / "index.html").unlink()  # which comes last
    (target / ".index.html.tmp").write_text("<!doctype")
    some = next((target / "pictures").iterdir())
    some.rename(some.with_name(f".{some.name}.tmp"))
    sheet(base, "--output", str(target))
    assert (target / "index.html").exists()
    assert some.exists()

    (target / "index.html").unlink()
    (target / "pictures" / "mine.webp").write_text("a picture of somebody's")
    assert "holds other things" in sheet(base, "--output", str(target), code=78).stderr


def test_a_folder_that_may_not_be_read_is_told(base: Path, tmp_path: Path) -> None:
    prefix = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    if subprocess.run([*prefix, "true"], capture_output=True).returncode != 0:
        pytest.skip("capabilities can't be taken away here")
    closed = [base / room / f"closed {room}" for room in ("outbox", "quarantine")]
    for folder in closed:
        folder.mkdir(mode=0)
    done = maskdrop(["sheet", str(base / "outbox"), "--output", str(tmp_path / "sheet")], prefix)
    for folder in closed:
        folder.rmdir()
    assert done.returncode == 0
    assert done.stderr.splitlines()[:2] == [
        f"maskdrop: {folder.name}: Permission denied; what is in it isn't shown" for folder in closed
    ]


def kinds(page: Path) -> list[str | None]:
    """What is shown of pictures, in the order of the page."""
    return [attributes["data-kind"] for attributes in Tags(page.read_text()).all("figure")]


def test_results_go_by_their_configured_names_and_originals_by_their_numbered_ones(tmp_path: Path) -> None:
    """Two pictures of one name: the archive gives the second one a number, and the outbox its results a mark.
    Where the sheet lies is told by no option."""
    for folder in ("archive", "outbox"):
        (tmp_path / folder).mkdir()
    marks: list[str] = []
    for name, colour in (("a.png", "red"), ("a~2.png", "blue")):
        original = tmp_path / "archive" / name
        Image.new("RGB", (8, 8), colour).save(original)
        sha256 = hashlib.sha256(original.read_bytes()).hexdigest()
        marks.append(mark := f"~{sha256[:8]}" if marks else "")
        for ending in (".jpg", ".parts.png"):
            result = tmp_path / "outbox" / f"a{mark}{ending}"
            Image.new("RGB", (8, 8), colour).save(result, exif=provenance(sha256))
    config, page = tmp_path / "c.toml", tmp_path / "sheet" / "index.html"
    config.write_text(f"[folders]\ninbox = '{tmp_path}/inbox'\n[save.suffix]\nlabels = '.parts'\n")
    done = sheet(tmp_path, "--config", str(config))
    assert done.stderr == "2 pictures, 0 from quarantine\n"
    assert kinds(page) == ["original", "labels", "face"] * 2
    # Of the one that is shown, what was written before the newest of others too.
    for age, name in enumerate(("a.jpg", f"a{marks[1]}.jpg", "a.parts.png")):
        os.utime(tmp_path / "outbox" / name, (2e9 - age, 2e9 - age))
    assert sheet(tmp_path, "--config", str(config), "--last", "1").stderr.startswith("1 pictures, ")
    assert kinds(page) == ["original", "labels", "face"]
    config.write_text(config.read_text() + "[decode]\nmax_pixels = 63\n")
    sheet(tmp_path, "--config", str(config))
    assert kinds(page) == []


def test_of_what_is_broken_the_newest_is_shown(base: Path, tmp_path: Path) -> None:
    lost, target = tmp_path / "lost", tmp_path / "sheet"
    lost.mkdir()
    for name, year in (("earlier.jpg", 2020), ("latest.jpg", 2030), ("between.jpg", 2025)):
        (lost / name).write_bytes(b"no picture")
        reason = {"picture": name, "error": "OSError", "time": f"{year}-01-01T00:00:00+00:00"}
        (lost / f"{name}.reason.json").write_text(json.dumps(reason))
    places = ["--output", str(target), "--quarantine", str(lost), "--originals", str(lost)]
    done = sheet(base, *places, "--last", "1")
    assert done.stderr == "1 pictures, 1 from quarantine, 1 without their originals\n"
    text = Tags((target / "index.html").read_text()).text
    assert [name for name in ("earlier", "latest", "between") if f"{name}.jpg" in text] == ["latest"]


def test_what_is_not_a_sheet_is_never_written_over(base: Path, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("<p>my homepage</p>")
    told = sheet(base, "--output", str(tmp_path), code=78).stderr
    assert "holds other things; name an empty folder or a new one" in told
    assert (tmp_path / "index.html").read_text() == "<p>my homepage</p>"
    for room in ("outbox", "archive", "quarantine"):
        told = sheet(base, "--output", str(base / room / "sheet"), code=78).stderr
        assert f"lies inside {base / room}; name a folder outside" in told
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    told = sheet(base, "--output", str(tmp_path / "loop"), code=78).stderr
    assert "links on its way lead round in a circle" in told
    told = sheet(base, "--originals", str(base / "nowhere"), code=1).stderr
    assert "no such folder" in told


@pytest.fixture
def chromium() -> Iterator["Browser"]:
    try:
        with browser.browser() as running:
            yield running
    except browser.NoBrowser as error:
        pytest.skip(str(error))


def test_in_a_browser_it_filters_and_zooms(base: Path, tmp_path: Path, chromium: "Browser") -> None:
    sheet(base, "--output", str(tmp_path / "sheet"))
    page = chromium.new_page(viewport={"width": 1400, "height": 900})
    trouble: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: trouble.append(message.text))
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on("dialog", lambda dialog: trouble.append(dialog.message))
    page.on("request", lambda request: asked.append(request.url))
    page.goto((tmp_path / "sheet" / "index.html").as_uri())
    cards, figures = page.locator("article:visible"), page.locator("figure:visible")
    assert page.text_content("#shown") == "8 of 8 shown"
    assert cards.count() == 8
    page.locator("main figure img").last.scroll_into_view_if_needed()
    page.wait_for_function(
        "[...document.querySelectorAll('main img')].every((i) => i.complete && i.naturalWidth)"
    )
    page.evaluate("window.scrollTo(0, 0)")

    page.fill("input[name=text]", "PLAIN")
    assert cards.count() == 1
    assert page.text_content("article:visible h2") == "plain"
    page.fill("input[name=text]", "overlay")  # no name, though a picture's caption says so
    assert cards.count() == 0
    page.fill("input[name=text]", "no such name")
    assert cards.count() == 0
    page.fill("input[name=text]", "truncated")  # a reason
    assert page.text_content("article:visible h2") == "half.jpg"
    page.fill("input[name=text]", "")
    page.select_option("select", "broken")
    assert (cards.count(), figures.count()) == (2, 0)
    page.select_option("select", "saved")
    assert (cards.count(), figures.count()) == (6, 36)
    for kind in ("original", "face", "model", "labels"):
        page.uncheck(f"input[value={kind}]")
    assert figures.count() == 12
    width = "document.querySelector('figure:not([hidden]) img').getBoundingClientRect().width"
    narrow = page.evaluate(width)
    page.locator("input[name=side]").fill("256")
    assert page.evaluate(width) == 256 > narrow

    page.locator("figure[data-kind=overlay] img").first.click()
    large = page.locator("dialog img")
    page.wait_for_function("document.querySelector('dialog img').clientWidth > 0")
    assert (page.text_content("dialog span") or "").endswith(" · overlay")
    first = page.evaluate("document.querySelector('dialog img').clientWidth")
    assert first == round(1.5 * page.evaluate("document.querySelector('dialog img').naturalWidth"))
    page.click("dialog button[value='+']")
    second = page.evaluate("document.querySelector('dialog img').clientWidth")
    assert second == pytest.approx(1.5 * first, abs=2)
    page.keyboard.press("-")
    page.keyboard.press("-")
    assert page.evaluate("document.querySelector('dialog img').clientWidth") < first
    page.keyboard.press("ArrowRight")
    assert (page.text_content("dialog span") or "").endswith(" · cutout")
    assert large.is_visible()
    page.keyboard.press("Escape")
    assert not large.is_visible()

    page.screenshot(path=tmp_path / "page.png")
    with Image.open(tmp_path / "page.png") as image:
        assert len(image.convert("RGB").getcolors(2**24) or []) > 1000  # pictures, not a blank page
    assert page.title() == "maskdrop: outbox"
    assert trouble == []
    assert all(url.startswith((tmp_path / "sheet").as_uri()) for url in asked)
