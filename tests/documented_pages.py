"""What each page presupposes, put in place before its reader begins, and what there is when he has ended."""

import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from documented import ROOT, Command
from drawing import face_bytes
from reader import Reader
from running import FULL, Daemon, Rooms

PORTRAIT = ROOT / "daemon" / "maskdrop" / "weights" / "known-face.jpg"
WEIGHTS = ROOT / "daemon" / "maskdrop" / "weights" / "faces.safetensors"

BROKEN = face_bytes(1)[:3000]

_WEEKS_AGO = time.time() - 5 * 7 * 86_400


@dataclass(frozen=True)
class Preparation:
    """What is done before a page's first command, and the paths that its commands leave."""

    prepare: Callable[[Reader, Path], None]
    leaves: tuple[str, ...] = ()


def _portrait(reader: Reader, weights: Path) -> None:
    shutil.copyfile(PORTRAIT, reader.home / "portrait.jpg")


def _configuration(reader: Reader, weights: Path) -> None:
    """The service's, with quick settings."""
    state = reader.home / "state"
    folders = f"[folders]\ninbox = '{state / 'inbox'}'\noutbox = '{state / 'outbox'}'\n"
    own = f"{folders}[model]\nweights = '{weights}'\n{FULL}"
    (reader.home / "etc-maskdrop" / "maskdrop.toml").write_text(own)


def _photographs(reader: Reader, weights: Path) -> None:
    for index in range(3):
        _put(reader.home / "photographs" / f"{index}.jpg", face_bytes(index))


def _readme(reader: Reader, weights: Path) -> None:
    """The daemon that the page starts, seen from its own folder."""
    _portrait(reader, weights)
    (reader.home / "faces" / "inbox").mkdir(parents=True)


def _batch(reader: Reader, weights: Path) -> None:
    _photographs(reader, weights)
    _configuration(reader, weights)


def _check(reader: Reader, weights: Path) -> None:
    _batch(reader, weights)
    _put(reader.home / "photographs" / "raw" / "half.jpg", BROKEN)


def _doctor(reader: Reader, weights: Path) -> None:
    _configuration(reader, weights)
    (reader.home / "state" / "outbox").mkdir()


def _replay(reader: Reader, weights: Path) -> None:
    """Pictures in quarantine as the daemon leaves them, one of them weeks old, and one in the archive."""
    _configuration(reader, weights)
    quarantine = reader.home / "state" / "quarantine"
    for name, error, message in (
        ("large.jpg", "TooManyPixels", "larger than decode.max_pixels"),
        ("half.jpg", "OSError", "image file is truncated"),
        ("old.tif", "OSError", "image file is truncated"),
        ("other.jpg", "UnidentifiedImageError", "cannot identify image file"),
    ):
        _put(quarantine / name, BROKEN)
        reason = {"picture": name, "stage": "preprocess", "error": error, "message": message}
        _put(quarantine / f"{name}.reason.json", json.dumps(reason).encode())
    for path in quarantine.glob("old.tif*"):
        os.utime(path, (_WEEKS_AGO, _WEEKS_AGO))
    _put(reader.home / "state" / "archive" / "holiday" / "a.jpg", face_bytes(1))


def _sheet(reader: Reader, weights: Path) -> None:
    """What a batch and a daemon have done."""
    _batch(reader, weights)
    home = reader.home
    command = "maskdrop batch photographs results --config /etc/maskdrop.toml"
    reader.do(Command("docs/sheet.md", 0, command))
    shutil.copytree(home / "results", home / "state" / "outbox")
    shutil.copytree(home / "photographs", home / "state" / "archive")


def _models(reader: Reader, weights: Path) -> None:
    shutil.copyfile(WEIGHTS, reader.home / "network.safetensors")


def _monitoring(reader: Reader, weights: Path) -> None:
    """A daemon whose health file is where a service has it."""
    base, health = reader.home / "daemon", reader.home / "run" / "health.json"
    base.mkdir()
    rooms = replace(Rooms.make(base), health=health)
    settings = FULL.replace("[health]\n", f"[health]\nfile = '{health}'\n")
    reader.beside.append(Daemon(rooms, weights, settings, [], {}))
    reader.beside[0].wait_ready()


def _put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


PREPARATIONS: dict[str, Preparation] = {
    "README.md": Preparation(_readme, ("faces/outbox", "faces/archive", "faces/quarantine")),
    "docs/tutorial.md": Preparation(_portrait, ("faces/sheet/index.html", "faces/outbox/half.jpg")),
    "docs/batch.md": Preparation(_batch, ("results/2.jpg", "report.json", "broken")),
    "docs/check.md": Preparation(_check, ("report.json", "broken/raw/half.jpg")),
    "docs/doctor.md": Preparation(_doctor),
    "docs/models.md": Preparation(_models, ("network.onnx", "state/weights")),
    "docs/monitoring.md": Preparation(_monitoring),
    "docs/replay.md": Preparation(_replay, ("state/inbox/large.jpg", "state/inbox/holiday/a.jpg")),
    "docs/sheet.md": Preparation(_sheet, ("sheet/index.html", "sheet/sheet.png")),
}
