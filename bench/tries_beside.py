"""What was tried for speed beside the network: decoders, messages, threads in place of processes.

    python bench/tries_beside.py [decoders] [messages] [savers]

Ways take turns; the least of several turns counts. Prints Markdown tables.
"""

import io
import multiprocessing
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

import limits
import pictures
from maskdrop.config import DecodeSettings, Settings
from maskdrop.decoding import at_model_size, decode
from maskdrop.machine.cores import usable_cores
from maskdrop.preprocess import Preparer
from maskdrop.ticket import Infer, Prepare
from maskdrop.topology.slots import SharedSlots
from measured import machine

TURNS, SIDE = 7, 512
RGB = 3
"""torchvision.io.ImageReadMode.RGB"""
SAVED = 150
"""Pictures that are saved in each turn."""

Pixels = NDArray[np.uint8]


def least_ms(ways: dict[str, Callable[[], object]], clock: Callable[[], float]) -> dict[str, float]:
    """Milliseconds of each way by a clock, the least of several turns after one to warm up."""
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(TURNS + 1):
        for name, act in ways.items():
            began = clock()
            act()
            if turn:
                spent[name].append(1000 * (clock() - began))
    return {name: min(times) for name, times in spent.items()}


def by_torchvision(content: bytes) -> Pixels:
    """Decode whole, then scale as Pillow does; a slot takes (height, width, 3), so planes are permuted."""
    raw = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    planes = torch.ops.image.decode_jpeg(raw, RGB, False)
    pixels: Pixels = planes.permute(1, 2, 0).contiguous().numpy()
    return np.asarray(at_model_size(Image.fromarray(pixels), SIDE))


def by_pillow(content: bytes) -> Pixels:
    return np.asarray(at_model_size(decode(content, DecodeSettings()), SIDE))


def load_torchvision() -> None:
    """Load torchvision's operators.

    Raises:
        SystemExit: they are missing, or were built for another torch.
    """
    if hasattr(torch.ops.image, "decode_jpeg"):
        return
    try:
        import torchvision.io  # noqa: F401
    except RuntimeError as error:
        sys.exit(f"torchvision doesn't fit this torch: {error}; install both from one index")
    if not hasattr(torch.ops.image, "decode_jpeg"):
        sys.exit("torchvision's decoders can't be loaded here; install it and torch from one index")


def decoders() -> None:
    load_torchvision()
    print(
        "\n| side | Pillow, ms | torchvision, ms | pixels that differ | by at most |\n|---|---|---|---|---|"
    )
    face = pictures.faces()[0]
    for side in (512, 2048, 6000):
        buffer = io.BytesIO()
        with Image.open(face) as image:
            image.convert("RGB").resize((side, side), Image.Resampling.LANCZOS).save(
                buffer, "JPEG", quality=90
            )
        content = buffer.getvalue()
        ways: dict[str, Callable[[], object]] = {
            "pillow": lambda content=content: by_pillow(content),  # type: ignore[misc]
            "torchvision": lambda content=content: by_torchvision(content),  # type: ignore[misc]
        }
        spent = least_ms(ways, time.thread_time)
        apart = np.abs(by_pillow(content).astype(int) - by_torchvision(content))
        told = f"{(apart.max(axis=2) > 0).mean():.2%} | {apart.max()}"
        print(f"| {side} | {spent['pillow']:.2f} | {spent['torchvision']:.2f} | {told} |", flush=True)


def echo(connection: "multiprocessing.connection.Connection[object, object]") -> None:
    """The other end of a pipe: answers whatever comes."""
    while (task := connection.recv()) is not None:
        connection.send(task)


def messages() -> None:
    """Send thirty-two tasks to a process and back: one by one, and in one message."""
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=echo, args=(theirs,), daemon=True)
    process.start()
    tasks = [Infer(number, number % 12) for number in range(32)]

    def one_by_one() -> None:
        for task in tasks:
            ours.send(task)
        for _ in tasks:
            ours.recv()

    def together() -> None:
        ours.send(tasks)
        ours.recv()

    spent = least_ms({"one by one": one_by_one, "in one": together}, time.thread_time)
    ours.send(None)
    process.join()
    print("\n| messages | microseconds of the supervisor's processor time a ticket |\n|---|---|")
    for name, milliseconds in spent.items():
        print(f"| {name} | {1000 * milliseconds / len(tasks):.1f} |", flush=True)


def by_threads(settings: Settings, slots: SharedSlots, workers: int) -> float:
    """Pictures a second of savers that are threads of one process."""
    barrier = threading.Barrier(workers + 1)
    threads = [
        threading.Thread(target=limits.save_share, args=(settings, slots, index, workers, barrier))
        for index in range(workers)
    ]
    for thread in threads:
        thread.start()
    barrier.wait()
    began = time.monotonic()
    barrier.wait()
    seconds = time.monotonic() - began
    for thread in threads:
        thread.join()
    return SAVED / seconds


def savers() -> None:
    base = Path(tempfile.mkdtemp(prefix="maskdrop-savers-"))
    staged, workers = pictures.fill(base / "staged", SAVED), usable_cores()
    rates: dict[str, list[float]] = {"processes": [], "threads": []}
    try:
        for turn in range(2 * TURNS):
            place = base / f"{turn}"
            place.mkdir()
            settings = limits.settings_in(place)
            for name in ("outbox", "quarantine", "archive"):
                (place / name).mkdir()
            shutil.copytree(staged, settings.folders.inbox)
            slots = SharedSlots(limits.SAMPLES, SIDE)
            for ticket in limits.tickets(settings)[: limits.SAMPLES]:
                Preparer(settings, slots).prepare(Prepare(ticket, ticket.number))
            slots.labels[:] = slots.pictures[:, :, :, 0] // 16
            if turn % 2:
                rates["threads"].append(by_threads(settings, slots, workers))
            else:
                rates["processes"].append(limits.rate_of(limits.save_share, settings, slots, workers))
            shutil.rmtree(place)
    finally:
        shutil.rmtree(base)
    print(f"\n| {workers} savers as | pictures a second, median | best |\n|---|---|---|")
    for name, found in rates.items():
        print(f"| {name} | {np.median(found):.0f} | {max(found):.0f} |", flush=True)


TRIES = {"decoders": decoders, "messages": messages, "savers": savers}


def main() -> None:
    wanted = sys.argv[1:] or list(TRIES)
    if not set(wanted) <= set(TRIES):
        sys.exit(__doc__)
    torch.set_num_threads(1)
    print(machine())
    for name in wanted:
        TRIES[name]()


if __name__ == "__main__":
    main()
