"""The auditor finds each kind of broken promise."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from chaos.auditor import DOCUMENT_NAME, Auditor, Entry, Places
from drawing import draw_face, face_bytes

TAILS = (".jpg", ".labels.png")
CONTENTS = {"a/done.jpg": face_bytes(1), "waiting.jpg": face_bytes(2), "broken.jpg": b"no picture"}


def write_result(path: Path, sha: str) -> None:
    exif = Image.Exif()
    exif[DOCUMENT_NAME] = f"sha256:{sha}"
    path.parent.mkdir(parents=True, exist_ok=True)
    draw_face(3).save(path, exif=exif)


def sha_of(name: str) -> str:
    return hashlib.sha256(CONTENTS[name]).hexdigest()


@pytest.fixture
def places(tmp_path: Path) -> Places:
    """One original in each place, as it should be."""
    inbox, outbox = tmp_path / "inbox", tmp_path / "outbox"
    made = Places(inbox, outbox, tmp_path / "archive", tmp_path / "quarantine", TAILS)
    for folder in (made.inbox, made.outbox, made.archive / "a", made.quarantine):
        folder.mkdir(parents=True)
    (made.inbox / "waiting.jpg").write_bytes(CONTENTS["waiting.jpg"])
    (made.archive / "a" / "done.jpg").write_bytes(CONTENTS["a/done.jpg"])
    for tail in TAILS:
        write_result(made.outbox / "a" / f"done{tail}", sha_of("a/done.jpg"))
    (made.quarantine / "broken.jpg").write_bytes(CONTENTS["broken.jpg"])
    reason = {"error": "Broken", "message": "broken", "stage": "preprocess"}
    (made.quarantine / "broken.jpg.reason.json").write_text(json.dumps(reason))
    return made


def faults(places: Places, *, calm: bool = False) -> str:
    auditor = Auditor(places)
    for name in CONTENTS:
        auditor.expect(Entry(name, sha_of(name), name != "broken.jpg"))
    return "\n".join(auditor.audit(calm=calm).faults)


def test_what_is_as_it_should_be_has_no_fault(places: Places) -> None:
    assert faults(places) == ""
    write_result(places.outbox / "waiting.jpg", sha_of("waiting.jpg"))  # renamed, original not yet moved
    (places.outbox / ".maskdrop-1.tmp").write_bytes(b"half")
    (places.quarantine / "waiting.jpg.reason.json").write_bytes(
        (places.quarantine / "broken.jpg.reason.json").read_bytes()
    )
    assert faults(places) == ""


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


BREAKS: dict[str, tuple[Callable[[Places], object], str]] = {
    "lost": (lambda p: (p.inbox / "waiting.jpg").unlink(), "at 0 places"),
    "twice": (lambda p: (p.archive / "w.jpg").write_bytes(CONTENTS["waiting.jpg"]), "at 2 places"),
    "changed": (lambda p: truncate(p.archive / "a" / "done.jpg"), "unknown content"),
    "no result": (lambda p: (p.outbox / "a" / "done.labels.png").unlink(), "0 results '.labels.png'"),
    "half a result": (lambda p: truncate(p.outbox / "a" / "done.labels.png"), "not whole"),
    "result twice": (
        lambda p: write_result(p.outbox / "a" / "done~1.jpg", sha_of("a/done.jpg")),
        "2 results '.jpg'",
    ),
    "another's result": (lambda p: write_result(p.outbox / "x.jpg", "ab" * 32), "neither archived nor"),
    "stray in outbox": (lambda p: (p.outbox / "x.txt").write_text("x"), "not whole"),
    "no reason": (lambda p: (p.quarantine / "broken.jpg.reason.json").unlink(), "has no reason"),
    "half a reason": (lambda p: truncate(p.quarantine / "broken.jpg.reason.json"), "can't be read"),
    "stray reason": (lambda p: (p.quarantine / "x.reason.json").write_text("{}"), "without its picture"),
}


@pytest.mark.parametrize(("break_it", "words"), BREAKS.values(), ids=list(BREAKS))
def test_each_broken_promise_is_found(
    places: Places, break_it: Callable[[Places], object], words: str
) -> None:
    break_it(places)
    assert words in faults(places)


def test_in_a_calm_nothing_may_be_left(places: Places) -> None:
    (places.quarantine / ".maskdrop-1.tmp").write_bytes(b"half")
    found = faults(places, calm=True)
    assert "still in the inbox: ['waiting.jpg']" in found
    assert "'waiting.jpg' should be in archive" in found
    assert "left over" in found
