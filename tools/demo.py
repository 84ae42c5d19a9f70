"""The demo: a real daemon on a scratch inbox; sample pictures go in, and what comes out is shown.

    python tools/demo.py [--folder FOLDER]

Everything happens in ``.demo/``: inbox, outbox, quarantine, archive, health file, log, and
at the end ``contact-sheet.png``: original, labels and cut-out of each picture side by side.
"""

import argparse
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table
from skimage import data

from drawn_face import draw_face

PATIENCE_S = 180
TILE = 256
"""Pixels per side of a picture on the contact sheet."""

console = Console(highlight=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(".demo"), help="scratch folder, emptied first")
    base: Path = parser.parse_args().folder.absolute()
    inbox, health = make_rooms(base)
    daemon = start(base)
    try:
        wait(daemon, health, lambda content: content["state"] == "running", base)
        console.print(f"maskdrop runs, pid {daemon.pid}, inbox {inbox}")
        count = drop_samples(inbox)
        console.print(f"dropped {count} files; waiting for their results")
        wait(daemon, health, lambda content: finished(content) == count, base)
        daemon.send_signal(signal.SIGTERM)
        code = daemon.wait(PATIENCE_S)
    finally:
        if daemon.poll() is None:
            daemon.kill()
    console.print(what_came_out(base))
    sheet = base / "contact-sheet.png"
    contact_sheet(base).save(sheet)
    console.print(f"drained with exit code {code}; originals, labels and cut-outs side by side: {sheet}")
    sys.exit(code)


def make_rooms(base: Path) -> tuple[Path, Path]:
    """Empty the scratch folder and write the demo's configuration."""
    shutil.rmtree(base, ignore_errors=True)
    inbox = base / "inbox"
    inbox.mkdir(parents=True)
    (base / "maskdrop.toml").write_text('[save]\noutputs = ["face", "cutout", "labels", "overlay"]\n')
    return inbox, base / "health.json"


def start(base: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "maskdrop", "run", "--config", str(base / "maskdrop.toml")]
    command += ["--inbox", str(base / "inbox"), "--outbox", str(base / "outbox")]
    with (base / "daemon.log").open("wb") as log:
        return subprocess.Popen(command, stderr=log)


def wait(daemon: "subprocess.Popen[bytes]", health: Path, condition: Any, base: Path) -> None:
    """Wait until the health file fulfils the condition.

    Raises:
        SystemExit: the daemon ended, or the wait took too long.
    """
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if daemon.poll() is not None:
            sys.exit(f"the daemon ended with {daemon.returncode}:\n{(base / 'daemon.log').read_text()}")
        if health.exists() and condition(json.loads(health.read_bytes())):
            return
        time.sleep(0.1)
    sys.exit(f"nothing came of it in {PATIENCE_S} s; see {base / 'daemon.log'}")


def finished(health: dict[str, Any]) -> int:
    return int(health["counts"]["saved"] + health["counts"]["quarantined"])


def drop_samples(inbox: Path) -> int:
    """Write the samples elsewhere and rename them into the inbox, as a careful program does; their number."""
    astronaut = Image.fromarray(data.astronaut())  # NASA, public domain: Eileen Collins, 1999
    samples = {
        "astronaut.png": astronaut,
        "astronaut-face.jpg": astronaut.crop((145, 0, 305, 200)).resize((640, 800), Image.Resampling.LANCZOS),
        "drawn-1.jpg": draw_face((226, 180, 150), (60, 90, 140), (70, 45, 30)),
        "drawn-2.webp": draw_face((150, 104, 76), (190, 170, 120), (20, 18, 18)),
    }
    staging = inbox.parent / "staging"
    staging.mkdir()
    for name, image in samples.items():
        image.save(staging / name)
    whole = (staging / "drawn-1.jpg").read_bytes()
    (staging / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (staging / "notes.jpg").write_text("These are my holiday notes, not a picture.\n")
    files = sorted(staging.iterdir())
    for file in files:
        file.rename(inbox / file.name)
    return len(files)


def what_came_out(base: Path) -> Table:
    """Every sample and what became of it."""
    table = Table("picture", "result", "files or reason", title="What came out")
    for original in sorted((base / "archive").iterdir()):
        results = sorted((base / "outbox").glob(f"{original.stem}.*"))
        table.add_row(original.name, "saved", ", ".join(result.name for result in results))
    for note in sorted((base / "quarantine").glob("*.reason.json")):
        reason = json.loads(note.read_bytes())
        table.add_row(reason["picture"], "quarantined", f"{reason['error']}: {reason['message']}")
    return table


def contact_sheet(base: Path) -> Image.Image:
    """A row for each saved picture: original, labels over it, cut-out on a chequered ground."""
    originals = sorted((base / "archive").iterdir())
    sheet = Image.new("RGB", (3 * TILE, len(originals) * TILE), "white")
    for row, original in enumerate(originals):
        overlay = next((base / "outbox").glob(f"{original.stem}.overlay.*"))
        cutout = next((base / "outbox").glob(f"{original.stem}.cutout.*"))
        for column, path in enumerate((original, overlay, cutout)):
            tile = tile_of(path)
            place = column * TILE + (TILE - tile.width) // 2, row * TILE + (TILE - tile.height) // 2
            sheet.paste(tile, place)
    return sheet


def tile_of(path: Path) -> Image.Image:
    with Image.open(path) as image:
        image.thumbnail((TILE - 8, TILE - 8))
        picture = image.convert("RGBA")
    ground = Image.fromarray(chequers(picture.width, picture.height))
    ground.paste(picture, mask=picture)
    return ground


def chequers(width: int, height: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The pattern that stands for transparency: uint8 (height, width, 3)."""
    rows, columns = np.indices((height, width)) // 8
    shade = np.where((rows + columns) % 2 == 0, 235, 205).astype(np.uint8)
    return np.repeat(shade[:, :, np.newaxis], 3, axis=2)


if __name__ == "__main__":
    main()
