"""What each stage of maskdrop gives alone, with the whole machine to itself.

    python bench/limits.py PICTURES [--workers 0] [--precision auto]

Decoding: as many preprocess workers as cores. Forward: the network with the best of several
batches, measured once more. Saving: as many save workers as cores, with pixels and labels there
already, results encoded, synced and renamed, originals archived. Every stage runs the daemon's own
code. Prints JSON.

"together" is what all three give where they share the cores, as on a CPU they do:
1 / (1 / decode + 1 / forward + 1 / save). Where the network has a device of its own, the slowest
stage is the limit.
"""

import argparse
import json
import os
import shutil
import time
from collections import deque
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as the daemon starts its workers

import numpy as np
import torch
import torch.multiprocessing
from PIL import Image

from maskdrop.config import Settings
from maskdrop.folders import prepare_folders
from maskdrop.inbox.lock import InboxLock
from maskdrop.machine.cores import usable_cores
from maskdrop.model.parser import FaceParser, load_parser
from maskdrop.model.under_way import UnderWay
from maskdrop.preprocess import prepare
from maskdrop.save import Saver
from maskdrop.supervisor.plan import find_devices
from maskdrop.ticket import Facts, Identity, Prepare, Save, Saved, Stage, Ticket
from maskdrop.topology.slots import Slots
from maskdrop.topology.worker import Workplace
from measured import SAME_OUTPUTS, WEIGHTS, scratch

SAMPLES = 8
"""Different pictures that are labelled and saved."""

CPU_BATCHES, GPU_BATCHES = (1, 2, 4, 8, 16, 32), (1, 4, 16, 32, 64)


def settings_in(base: Path, precision: str = "auto") -> Settings:
    folders = {name: base / name for name in ("inbox", "outbox", "quarantine", "archive")}
    model = {"precision": precision} | ({"weights": os.environ[WEIGHTS]} if WEIGHTS in os.environ else {})
    return Settings.model_validate({"folders": folders, "save": SAME_OUTPUTS, "model": model})


def tickets(settings: Settings) -> list[Ticket]:
    paths = sorted(settings.folders.inbox.iterdir())
    return [Ticket(n, path.name, Identity.of(path.stat())) for n, path in enumerate(paths)]


def decode_share(settings: Settings, slots: Slots, share: int, workers: int, barrier: Any) -> None:
    Image.init()
    mine = tickets(settings)[share::workers]
    barrier.wait()
    for ticket in mine:
        prepare(Prepare(ticket, share), settings, slots)
    barrier.wait()


def save_share(settings: Settings, slots: Slots, share: int, workers: int, barrier: Any) -> None:
    Image.init()
    folders = prepare_folders(settings)
    saver = Saver(Workplace(Stage.SAVE, f"save-{share}", settings, folders, slots, InboxLock(-1)))
    everyone = tickets(settings)
    facts, samples = Facts("0" * 64, slots.side, slots.side), min(SAMPLES, len(everyone))
    barrier.wait()
    for ticket in everyone[share::workers]:
        report = saver.save(Save(ticket, ticket.number % samples, facts))
        assert isinstance(report, Saved), report
    barrier.wait()


def rate_of(share: Any, settings: Settings, slots: Slots, workers: int) -> float:
    """Pictures a second of some workers that share a folder's pictures."""
    context = torch.multiprocessing.get_context("spawn")
    barrier = context.Barrier(workers + 1)
    count = len(tickets(settings))
    processes = [
        context.Process(target=share, args=(settings, slots, index, workers, barrier), daemon=True)
        for index in range(workers)
    ]
    for process in processes:
        process.start()
    barrier.wait()
    began = time.monotonic()
    barrier.wait()
    seconds = time.monotonic() - began
    for process in processes:
        process.join()
    return count / seconds


def forward_rate(network: FaceParser, samples: np.ndarray, size: int, count: int) -> float:
    """Pictures a second in batches of a size; once before, so that none is warmer than others.

    Beside the CPU as the daemon has them labelled: from pinned memory, and one batch begun ahead.
    """
    ahead = 0 if network.info.device == "cpu" else 1
    pictures = network.room(ahead + 1, size, *samples.shape[1:])
    labels = network.room(ahead + 1, size, *samples.shape[1:3])
    pictures[:] = np.resize(samples, pictures.shape[1:])

    def label(turns: int) -> None:
        under_way: deque[UnderWay[None]] = deque()
        for turn in range(turns):
            at = turn % (ahead + 1)
            under_way.append(network.begin(list(pictures[at]), list(labels[at]), lambda *_: None))
            if len(under_way) > ahead:
                under_way.popleft().results()
        while under_way:
            under_way.popleft().results()

    label(ahead + 1)
    turns = max(2, round(count / size))
    began = time.monotonic()
    label(turns)
    return turns * size / (time.monotonic() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("pictures", type=Path, help="folder of JPEGs; copied, not touched")
    parser.add_argument("--workers", type=int, default=0, help="processes a stage; 0: as many as cores")
    parser.add_argument("--precision", default="auto", help="of the network: auto, fp32, bf16, int8")
    options = parser.parse_args()
    workers = options.workers or usable_cores()
    with scratch("limits") as base:
        print(json.dumps(measure(base, options.pictures, workers, options.precision)))


def measure(base: Path, pictures: Path, workers: int, precision: str) -> dict[str, Any]:
    settings = settings_in(base, precision)
    for folder in (settings.folders.outbox, base / "quarantine", base / "archive"):
        folder.mkdir()
    shutil.copytree(pictures, settings.folders.inbox)
    side = settings.model.input_size
    slots = Slots(max(workers, SAMPLES), side)
    decode = rate_of(decode_share, settings, slots, workers)
    for ticket in tickets(settings)[:SAMPLES]:
        prepare(Prepare(ticket, ticket.number), settings, slots)
    samples = slots.pictures[: min(SAMPLES, len(tickets(settings)))].copy()
    (device, *_), threads, count = find_devices(settings.model.device), usable_cores(), len(tickets(settings))
    torch.set_num_threads(threads)
    network = load_parser(settings.model, device, threads)
    sizes = CPU_BATCHES if device == "cpu" else GPU_BATCHES
    by_batch = {size: forward_rate(network, samples, size, count) for size in sizes}
    best = max(by_batch, key=lambda size: by_batch[size])
    forward = forward_rate(network, samples, best, count)  # once more: the largest was also the luckiest
    slots.labels[: len(samples)] = network.parse(samples)
    save = rate_of(save_share, settings, slots, workers)
    rates = {"decode": decode, "forward": forward, "save": save}
    return {
        **rates,
        "forward_by_batch": by_batch,
        "best_batch": best,
        "slowest": min(rates.values()),
        "together": 1 / sum(1 / rate for rate in rates.values()),
    }


if __name__ == "__main__":
    main()
