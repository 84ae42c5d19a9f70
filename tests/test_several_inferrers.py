"""Several inference workers on one device: both work, and one goes on where the other doesn't."""

import fcntl
import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from drawing import encode, face_bytes
from maskdrop.config import ModelSettings
from maskdrop.model.known import known_picture
from maskdrop.model.parser import load_parser
from running import QUICK, Daemon, Rooms

TWO = """
[workers]
preprocess = 1
infer = 2
save = 1
max_batch = 2
[save]
outputs = ["labels"]
[watch]
settle_ms = 0
"""

PICTURES = 12


def drop(rooms: Rooms, count: int) -> None:
    content = encode(Image.fromarray(known_picture(512)), "PNG")
    for number in range(count):
        rooms.drop(f"{number}.png", content)


def test_two_inference_workers_share_the_pictures(
    rooms: Rooms, start: Callable[..., Daemon], tiny_weights: Path
) -> None:
    daemon = start(settings=TWO).wait_ready()
    assert daemon.health()["plan"]["infer"] == 2
    assert "ready: 1 preprocess, 2 infer (cpu, " in daemon.log
    stopped, other = daemon.workers("infer")
    os.kill(stopped, signal.SIGSTOP)
    drop(rooms, PICTURES)
    # The one that stands still holds two batches at most; the other one has done all the rest.
    daemon.wait_health(lambda health: health["counts"]["saved"] >= PICTURES - 4, "the other one's pictures")
    assert daemon.health()["counts"]["saved"] < PICTURES
    os.kill(stopped, signal.SIGKILL)
    daemon.wait_count("saved", PICTURES)
    health = daemon.wait_health(lambda health: not health["in_flight"], "nothing in flight")
    assert 1 <= health["counts"]["retried"] <= 4
    assert other in daemon.workers("infer")
    assert_labelled(rooms, tiny_weights, PICTURES)


def pipe_sizes(pid: int) -> list[int]:
    """Bytes that each of a process's pipes holds."""
    ends = [path for path in Path(f"/proc/{pid}/fd").iterdir() if str(path.readlink()).startswith("pipe:")]
    sizes = []
    for end in ends:
        descriptor = os.open(end, os.O_RDWR | os.O_NONBLOCK)
        sizes.append(fcntl.fcntl(descriptor, fcntl.F_GETPIPE_SZ))
        os.close(descriptor)
    return sizes


def test_however_much_a_worker_may_hold_the_supervisor_does_not_wait_for_it(
    rooms: Rooms, start: Callable[..., Daemon]
) -> None:
    """Two batches of 512 are more messages than a pipe holds by default."""
    settings = QUICK.replace("save = 1", "save = 1\nmax_batch = 512").replace("= 256", "= 32")
    daemon = start(settings=settings).wait_ready()
    (infer,) = daemon.workers("infer")
    assert sorted(pipe_sizes(infer))[-2:] == [2**20, 2**20]  # tasks, and reports of a batch with sidecars
    os.kill(infer, signal.SIGSTOP)
    content = face_bytes(1, width=32, height=32)
    for number in range(1050):
        rooms.drop(f"{number}.jpg", content)
    daemon.wait_health(
        lambda h: h["in_flight"] > 1024 and not h["queues"]["preprocess"], "all that it may hold, and more"
    )
    os.kill(infer, signal.SIGCONT)
    daemon.wait_count("saved", 1050)
    assert daemon.stop() == 0


def assert_labelled(rooms: Rooms, weights: Path, count: int) -> None:
    """As one thread labels them."""
    expected = load_parser(ModelSettings(weights=weights), "cpu").parse(known_picture(512)[np.newaxis])
    for number in range(count):
        with Image.open(rooms.outbox / f"{number}.labels.png") as labels:
            np.testing.assert_array_equal(np.asarray(labels), expected[0])


def test_a_single_picture_among_several_workers(
    rooms: Rooms, start: Callable[..., Daemon], tiny_weights: Path
) -> None:
    """In whichever worker it comes to, more threads share it than label the pictures of a batch."""
    daemon = start(settings=TWO).wait_ready()
    content = encode(Image.fromarray(known_picture(512)), "PNG")
    for number in range(3):
        rooms.drop(f"{number}.png", content)
        daemon.wait_count("saved", number + 1)
    assert rooms.pictures("outbox") == [f"{number}.labels.png" for number in range(3)]
    assert_labelled(rooms, tiny_weights, 3)
    assert daemon.stop() == 0
