"""Everything that a sheet is: small pictures, the contact sheet, and the page, put in place last."""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from PIL import Image

from maskdrop.beneath import open_folder
from maskdrop.config import DecodeSettings, SaveSettings
from maskdrop.decoding import set_up_decoding
from maskdrop.durable import rename_over, sync_folder, write_synced
from maskdrop.names import printable
from maskdrop.replay import Kept
from maskdrop.sheet import thumbnails
from maskdrop.sheet.contact import ContactSheet
from maskdrop.sheet.gather import IMAGE_OUTPUTS, Originals, Shown, newest_broken, newest_pictures
from maskdrop.sheet.page import GENERATOR, Card, page

PAGE, CONTACT, PICTURES = "index.html", "sheet.png", "pictures"
"""What a sheet's folder holds."""

_ORIGINAL = "original"
_OUR_PICTURE = re.compile(r"[0-9a-f]{32}\.webp")
_TEMPORARY = re.compile(rf"\.({_OUR_PICTURE.pattern}|{re.escape(PAGE)}|{re.escape(CONTACT)})\.tmp")
_MODE, _FOLDER_MODE = 0o644, 0o755


@dataclass(frozen=True)
class Rooms:
    """Folders that a sheet is made from, absolute and without links; None: not shown."""

    outbox: Path
    originals: Path | None
    quarantine: Path | None


@dataclass(frozen=True)
class Made:
    """How much is on a sheet.

    Attributes:
        unread: sub-folders that could not be read, each with the reason.
    """

    saved: int
    broken: int
    without_original: int
    unread: tuple[str, ...]


def is_ours_or_empty(folder: Path) -> bool:
    """Whether a folder may be filled with a sheet: it is missing or empty, or holds an older sheet, or the
    remains of one that was interrupted before it had a page.

    Raises:
        OSError: the folder can't be read.
    """
    if not folder.exists():
        return True
    try:
        with (folder / PAGE).open(encoding="utf-8", errors="replace") as file:
            return f'name="generator" content="{GENERATOR}' in file.read(2_000)
    except FileNotFoundError:
        return _holds_only_remains(folder)


def _holds_only_remains(folder: Path) -> bool:
    names = {path.name for path in folder.iterdir() if not _TEMPORARY.fullmatch(path.name)}
    if not names:
        return True
    pictures = folder / PICTURES
    if PICTURES not in names or names - {PICTURES, CONTACT} or pictures.is_symlink() or not pictures.is_dir():
        return False
    return all(_is_our_picture(path.name) for path in pictures.iterdir())


def _is_our_picture(name: str) -> bool:
    return bool(_OUR_PICTURE.fullmatch(name) or _TEMPORARY.fullmatch(name))


class Sheet:
    """A sheet in the making."""

    def __init__(self, target: Path, rooms: Rooms, decoding: DecodeSettings, saving: SaveSettings) -> None:
        """Prepare.

        Args:
            target: absolute and without links; made if it is missing.
        """
        self._target, self._rooms = target, rooms
        self._decoding, self._saving = decoding, saving
        self._used: set[str] = set()
        self._unread: list[str] = []

    def make(self, most: int, progress: Callable[[int, int], None]) -> Made:
        """Write everything; the old page stays until the new one is whole.

        Args:
            most: pictures, and as many from quarantine.
            progress: called after each picture with how many are done, and of how many.

        Raises:
            OSError: a folder can't be read, or the target can't be written.
        """
        set_up_decoding()
        (self._target / PICTURES).mkdir(parents=True, exist_ok=True)
        pictures = newest_pictures(self._rooms.outbox, self._saving, most, self._note_unread)
        originals = Originals(self._rooms.originals, self._decoding) if self._rooms.originals else None
        kinds = [_ORIGINAL] if originals else []
        kinds += [output for output in IMAGE_OUTPUTS if any(output in one.results for one in pictures)]
        contact = ContactSheet(len(pictures), len(kinds))
        cards, without = [], 0
        for number, shown in enumerate(pictures, start=1):
            images = self._images(shown, originals)
            without += _ORIGINAL not in images
            contact.add(printable(shown.name), list(images.values()))
            files = {kind: self._keep(image) for kind, image in images.items()}
            when = datetime.fromtimestamp(shown.modified_ns / 1e9, UTC).isoformat(" ", "seconds")
            cards.append(Card(printable(shown.name), f"{when} · sha256 {shown.sha256[:16]}", "", files))
            progress(number, len(pictures))
        lost = self._rooms.quarantine
        broken = newest_broken(lost, most, self._note_unread) if lost else []
        cards += [_card(kept) for kept in broken]
        self._finish(contact.image, page(f"maskdrop: {printable(self._rooms.outbox.name)}", cards, kinds))
        return Made(len(pictures), len(broken), without, tuple(self._unread))

    def _note_unread(self, folder: str, error: OSError) -> None:
        self._unread.append(f"{printable(folder)}: {error.strerror}")

    def _images(self, shown: Shown, originals: Originals | None) -> dict[str, Image.Image]:
        """Small pictures of everything that is there and can be decoded, in the order of the page."""
        images: dict[str, Image.Image | None] = {}
        content = originals.content_of(shown) if originals is not None else None
        if content is not None:
            images[_ORIGINAL] = thumbnails.of_original(content, self._decoding)
        for output in IMAGE_OUTPUTS:
            if (path := shown.results.get(output)) is not None:
                images[output] = thumbnails.of_result(self._rooms.outbox, path, self._decoding)
        return {kind: image for kind, image in images.items() if image is not None}

    def _keep(self, image: Image.Image) -> str:
        """Write a small picture under the name that its content gives, and return it relative to the page."""
        content = thumbnails.encoded(image)
        name = hashlib.sha256(content).hexdigest()[:32] + ".webp"
        if name not in self._used:
            with open_folder(self._target, PICTURES) as folder:
                write_synced(folder, f".{name}.tmp", content, _MODE)
                rename_over(folder, f".{name}.tmp", name)
            self._used.add(name)
        return f"{PICTURES}/{name}"

    def _finish(self, contact: Image.Image, text: str) -> None:
        """Put contact sheet and page in place, then remove small pictures of older pages. Those of the page
        just replaced stay: a browser may have it open, and loads pictures only as they come into view."""
        keep = self._used | self._shown_before()
        with open_folder(self._target) as folder:
            temporary = self._target / f".{CONTACT}.tmp"
            contact.save(temporary, "PNG", optimize=True)
            rename_over(folder, temporary.name, CONTACT)
            write_synced(folder, f".{PAGE}.tmp", text.encode(), _MODE)
            rename_over(folder, f".{PAGE}.tmp", PAGE)
            sync_folder(folder)
        for old in (self._target / PICTURES).iterdir():
            if old.name not in keep and _is_our_picture(old.name):
                old.unlink()

    def _shown_before(self) -> set[str]:
        """Names of the small pictures on the page that is to be replaced."""
        try:
            return set(_OUR_PICTURE.findall((self._target / PAGE).read_text(encoding="utf-8")))
        except FileNotFoundError:
            return set()


def _card(kept: Kept) -> Card:
    """The card of a broken picture; whatever its reason file holds is taken as text."""
    told = {key: str(kept.reason.get(key, "")) for key in ("stage", "error", "message")}
    why = ": ".join(filter(None, (printable(text) for text in told.values()))) or "no reason is told"
    when = datetime.fromtimestamp(kept.since, UTC).isoformat(" ", "seconds")
    return Card(printable(kept.path), f"{when} · {kept.identity.size:,} bytes", why, {})
