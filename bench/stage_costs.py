"""Processor time of each stage, and bytes, per picture, for tools/sizing.py.

    python bench/stage_costs.py PICTURES [--sides 512 2048] [--turns 3] [--count 60] > docs/sizing.json

Every stage runs the daemon's own code with its defaults in one process with one thread, on local disks. The
pictures are scaled to each side and saved as JPEG 90, unless they have that side. Times are processor time,
which other programs affect little, and the least of several turns. Prints JSON.
"""

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import torch
from PIL import Image

from limits import tickets
from maskdrop.config import Settings
from maskdrop.devices import find_devices
from maskdrop.folders import prepare_folders
from maskdrop.inbox.lock import InboxLock
from maskdrop.machine.heap import keep_memory
from maskdrop.model.parser import load_parser
from maskdrop.preprocess import Preparer
from maskdrop.save import Saver
from maskdrop.ticket import Prepare, Prepared, Save, Saved, Stage
from maskdrop.topology.slots import SharedSlots
from maskdrop.topology.worker import Workplace
from measured import machine

BATCH = 8
"""Pictures that are labelled together: the daemon's own choice for each lane on a CPU."""

SUFFIXES = (".jpg", ".jpeg")


class Spent:
    """Processor time of this process and all its threads within ``with`` blocks, in ms."""

    def __init__(self) -> None:
        self.ms = 0.0
        self._began = 0.0

    def __enter__(self) -> None:
        self._began = time.process_time()

    def __exit__(self, *_: object) -> None:
        self.ms += (time.process_time() - self._began) * 1000


def fill(inbox: Path, pictures: list[Path], side: int) -> None:
    for path in pictures:
        with Image.open(path) as picture:
            if picture.size == (side, side):
                shutil.copy(path, inbox)
            else:
                scaled = picture.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
                scaled.save(inbox / path.name, "JPEG", quality=90)


def turn(pictures: list[Path], side: int) -> dict[str, float]:
    """One turn at one size: ms and bytes per picture."""
    base = Path(tempfile.mkdtemp(prefix="maskdrop-sizing-"))
    try:
        names = ("inbox", "outbox", "quarantine", "archive")
        settings = Settings.model_validate({"folders": {name: base / name for name in names}})
        folders = prepare_folders(settings)
        fill(folders.inbox, pictures, side)
        bytes_in = statistics.mean(path.stat().st_size for path in folders.inbox.iterdir())
        slots = SharedSlots(len(pictures), settings.model.input_size)
        parser = load_parser(settings.model, find_devices("cpu")[0], 1)
        saver = Saver(Workplace(Stage.SAVE, "save-0", settings, folders, slots, InboxLock(-1)))
        parser.parse(slots.pictures[:BATCH])
        decode, forward, save = Spent(), Spent(), Spent()
        waiting, facts = tickets(settings), []
        for ticket in waiting:
            with decode:
                prepared = Preparer(settings, slots).prepare(Prepare(ticket, ticket.number))
            assert isinstance(prepared, Prepared), prepared
            facts.append(prepared.facts)
        for first in range(0, len(waiting), BATCH):
            part = slice(first, first + BATCH)
            with forward:
                slots.labels[part] = parser.parse(slots.pictures[part])
        for ticket in waiting:
            with save:
                saved = saver.save(Save(ticket, ticket.number, facts[ticket.number]))
            assert isinstance(saved, Saved), saved
        count = len(waiting)
        bytes_out = sum(path.stat().st_size for path in folders.outbox.rglob("*") if path.is_file()) / count
        times = {"decode_ms": decode, "forward_ms": forward, "save_ms": save}
        costs = {name: round(spent.ms / count, 2) for name, spent in times.items()}
        return {"bytes_in": round(bytes_in), "bytes_out": round(bytes_out), **costs}
    finally:
        shutil.rmtree(base)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("pictures", type=Path, help="folder of JPEGs; copied, not touched")
    parser.add_argument("--sides", type=int, nargs="+", default=[512, 2048], help="pixels a side")
    parser.add_argument("--turns", type=int, default=3, help="the least of so many turns counts")
    parser.add_argument("--count", type=int, default=60, help="pictures a turn")
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_memory()  # as decoders and savers do
    Image.MAX_IMAGE_PIXELS = None
    Image.init()
    paths = (path for path in options.pictures.iterdir() if path.suffix.lower() in SUFFIXES)
    if not (pictures := sorted(paths)[: options.count]):
        sys.exit(f"{options.pictures}: no file ends in {' or '.join(SUFFIXES)}")
    measured = {}
    for side in options.sides:
        turns = [turn(pictures, side) for _ in range(options.turns)]
        measured[str(side)] = {key: min(one[key] for one in turns) for key in turns[0]}
    print(json.dumps({"machine": machine(), "pictures": measured}, indent=2))


if __name__ == "__main__":
    main()
