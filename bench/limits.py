"""How many pictures a second each stage of maskdrop does alone, with the whole machine to itself.

    python bench/limits.py PICTURES [--workers 0] [--precision auto]

Decoding: as many preprocess workers as cores. Forward: the network in as many inference processes as
the daemon has, on every device, with the best of several batches, measured once more. Saving: as many
save workers as cores, with pixels and labels there already, results encoded, synced and renamed,
originals archived. Every stage runs the daemon's own code. Prints JSON.

"together" is what all three do where they share the cores, as on a CPU:
1 / (1 / decode + 1 / forward + 1 / save). Where the network has GPUs, only decoding and saving share the
cores, and "together" is their rate or the forward's, whichever is less.
"""

import argparse
import json
import os
import shutil
import sys
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from threading import BrokenBarrierError
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as the daemon starts its workers

import numpy as np
import torch
import torch.multiprocessing
from numpy.typing import NDArray
from PIL import Image

from maskdrop.config import Settings
from maskdrop.decoding import BrokenPicture
from maskdrop.folders import prepare_folders
from maskdrop.inbox.lock import InboxLock
from maskdrop.leave_alone import LeaveAlone
from maskdrop.machine.cores import usable_cores
from maskdrop.machine.heap import keep_memory
from maskdrop.model.parser import FaceParser, load_parser
from maskdrop.model.under_way import UnderWay
from maskdrop.preprocess import Preparer
from maskdrop.save import Saver
from maskdrop.supervisor.plan import make_plan
from maskdrop.ticket import Facts, Identity, Prepare, Save, Saved, Stage, Ticket
from maskdrop.topology.slots import SharedSlots
from maskdrop.topology.worker import Workplace
from measured import PATIENCE_S, SAME_OUTPUTS, WEIGHTS, scratch

SAMPLES = 8
"""Different pictures that are labelled and saved."""

CPU_BATCHES, GPU_BATCHES = (1, 2, 4, 8, 16, 32), (1, 4, 16, 32, 64)

GPU_PICTURES = 10_000
"""Pictures labelled in batches of each size on GPUs: some seconds' work."""

Pixels = NDArray[np.uint8]


def settings_in(base: Path, precision: str = "auto") -> Settings:
    folders = {name: base / name for name in ("inbox", "outbox", "quarantine", "archive")}
    model = {"precision": precision} | ({"weights": os.environ[WEIGHTS]} if WEIGHTS in os.environ else {})
    return Settings.model_validate({"folders": folders, "save": SAME_OUTPUTS, "model": model})


def tickets(settings: Settings) -> list[Ticket]:
    paths = sorted(path for path in settings.folders.inbox.iterdir() if path.is_file())
    return [Ticket(n, path.name, Identity.of(path.stat())) for n, path in enumerate(paths)]


def decode_share(settings: Settings, slots: SharedSlots, share: int, workers: int, barrier: Any) -> None:
    Image.init()
    keep_memory()
    mine = tickets(settings)[share::workers]
    barrier.wait()
    for ticket in mine:
        try:
            Preparer(settings, slots).prepare(Prepare(ticket, share))
        except (BrokenPicture, LeaveAlone) as error:
            barrier.abort()
            sys.exit(f"{ticket.path}: {error}; name a folder of whole pictures")
    barrier.wait()


def save_share(settings: Settings, slots: SharedSlots, share: int, workers: int, barrier: Any) -> None:
    Image.init()
    keep_memory()
    folders = prepare_folders(settings)
    saver = Saver(Workplace(Stage.SAVE, f"save-{share}", settings, folders, slots, InboxLock(-1)))
    everyone = tickets(settings)
    facts, samples = Facts("0" * 64, slots.side, slots.side), min(SAMPLES, len(everyone))
    barrier.wait()
    for ticket in everyone[share::workers]:
        report = saver.save(Save(ticket, ticket.number % samples, facts))
        assert isinstance(report, Saved), report
    barrier.wait()


def rate_of(share: Any, settings: Settings, slots: SharedSlots, workers: int) -> float:
    """Pictures a second of ``workers`` processes that share a folder's pictures.

    Raises:
        SystemExit: a process failed, and said why.
    """
    context = torch.multiprocessing.get_context("spawn")
    count = len(tickets(settings))
    barrier = context.Barrier(workers + 1, timeout=PATIENCE_S + count)
    processes = [
        context.Process(target=share, args=(settings, slots, index, workers, barrier), daemon=True)
        for index in range(workers)
    ]
    for process in processes:
        process.start()
    try:
        barrier.wait()
        began = time.monotonic()
        barrier.wait()
    except BrokenBarrierError:
        sys.exit(f"{share.__name__}: a process failed")
    seconds = time.monotonic() - began
    for process in processes:
        process.join()
    return count / seconds


@dataclass(frozen=True)
class Team:
    """Inference processes as the daemon would have them: each has a device, or a share of the cores.

    Attributes:
        devices: one for each process.
        threads: of each process.
        sizes: batch sizes to try.
        count: about how many pictures are labelled in batches of each size.
    """

    devices: tuple[str, ...]
    threads: int
    sizes: tuple[int, ...]
    count: int

    def turns(self, size: int) -> int:
        """Batches of a size for each process."""
        return max(2, round(self.count / size / len(self.devices)))


def team_for(settings: Settings, count: int) -> Team:
    plan = make_plan(settings)
    if plan.devices[0] == "cpu":
        return Team(plan.devices, plan.threads, CPU_BATCHES, count)
    return Team(plan.devices, plan.threads, GPU_BATCHES, max(count, GPU_PICTURES))


def forward_share(settings: Settings, team: Team, index: int, samples: Pixels, size: Any, gate: Any) -> None:
    """Label batches of each size that is asked for, until it is 0. By the second opening of the gate for a
    size, this is warm.

    On a GPU, batches are labelled as in the daemon: from pinned memory, and with one batch begun ahead.
    """
    device = team.devices[index]
    torch.set_num_threads(team.threads)
    network = load_parser(settings.model, device, team.threads)
    ahead = 0 if device == "cpu" else 1
    while True:
        gate.wait()
        if not (wanted := size.value):
            return
        pictures = network.room(ahead + 1, wanted, *samples.shape[1:])
        labels = network.room(ahead + 1, wanted, *samples.shape[1:3])
        pictures[:] = np.resize(samples, pictures.shape[1:])
        label(network, pictures, labels, ahead + 1)
        gate.wait()
        label(network, pictures, labels, team.turns(wanted))
        gate.wait()


def label(network: FaceParser, pictures: Pixels, labels: Pixels, turns: int) -> None:
    under_way: deque[UnderWay[None]] = deque()
    for turn in range(turns):
        at = turn % len(pictures)
        under_way.append(network.begin(list(pictures[at]), list(labels[at]), lambda *_: None))
        if len(under_way) >= len(pictures):
            under_way.popleft().results()
    while under_way:
        under_way.popleft().results()


def forward_rates(settings: Settings, team: Team, samples: Pixels) -> tuple[dict[int, float], int, float]:
    """Pictures a second of a team for each batch size, the best size, and its rate measured once more: the
    largest figure was also the luckiest."""
    context = torch.multiprocessing.get_context("spawn")
    gate = context.Barrier(len(team.devices) + 1, timeout=PATIENCE_S)  # or a dead process would be waited for
    size = context.Value("i", 0)
    processes = [
        context.Process(target=forward_share, args=(settings, team, index, samples, size, gate), daemon=True)
        for index in range(len(team.devices))
    ]
    for process in processes:
        process.start()

    def rate(wanted: int) -> float:
        size.value = wanted
        for _ in range(2):
            gate.wait()
        began = time.monotonic()
        gate.wait()
        return team.turns(wanted) * wanted * len(team.devices) / (time.monotonic() - began)

    by_batch = {wanted: rate(wanted) for wanted in team.sizes}
    best = max(by_batch, key=lambda wanted: by_batch[wanted])
    once_more = rate(best)
    size.value = 0
    gate.wait()
    for process in processes:
        process.join()
    return by_batch, best, once_more


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("pictures", type=Path, help="folder of JPEGs; copied, not touched")
    parser.add_argument("--workers", type=int, default=0, help="that decode, and that save; 0: one a core")
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
    if not tickets(settings):
        sys.exit(f"{pictures}: no pictures")
    side = settings.model.input_size
    slots = SharedSlots(max(workers, SAMPLES), side)
    decode = rate_of(decode_share, settings, slots, workers)
    for ticket in tickets(settings)[:SAMPLES]:
        Preparer(settings, slots).prepare(Prepare(ticket, ticket.number))
    samples = slots.pictures[: min(SAMPLES, len(tickets(settings)))].copy()
    team = team_for(settings, len(tickets(settings)))
    by_batch, best, forward = forward_rates(settings, team, samples)
    slots.labels[: len(samples)] = load_parser(settings.model, team.devices[0]).parse(samples)
    save = rate_of(save_share, settings, slots, workers)
    rates, on_cpu = {"decode": decode, "forward": forward, "save": save}, team.devices[0] == "cpu"
    return {
        **rates,
        "forward_by_batch": by_batch,
        "best_batch": best,
        "slowest": min(rates.values()),
        "on_gpu": not on_cpu,
        "together": together(rates, on_cpu),
    }


def together(rates: dict[str, float], on_cpu: bool) -> float:
    """Pictures a second of all stages at the same time; a GPU takes nothing from the other stages."""
    cores = [rate for name, rate in rates.items() if on_cpu or name != "forward"]
    shared = 1 / sum(1 / rate for rate in cores)
    return shared if on_cpu else min(shared, rates["forward"])


if __name__ == "__main__":
    main()
