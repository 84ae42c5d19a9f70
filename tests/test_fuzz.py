"""Damaged pictures, some hundred or (MASKDROP_FUZZ=20000, make fuzz) as many as wished, each other ones."""

import hashlib
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mutations import good_files, mutate
from running import QUICK, Daemon, Rooms
from waiting import wait_for

Start = Callable[..., Daemon]

COUNT = int(os.environ.get("MASKDROP_FUZZ", "400"))
AT_ONCE = 1_000


def tally(rooms: Rooms, room: str) -> dict[str, str]:
    """SHA-256 of every picture in a room, by name."""
    folder: Path = getattr(rooms, room)
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in rooms.pictures(room)}


@pytest.mark.timeout(60 + COUNT)
def test_damaged_pictures_through_the_daemon(start: Start, rooms: Rooms) -> None:
    seed = int(os.environ.get("MASKDROP_SEED", str(time.time_ns() % 10**6)))
    print(f"seed {seed}; give it again with MASKDROP_SEED")
    chance, good = random.Random(seed), good_files()
    daemon = start(settings=QUICK).wait_ready()
    dropped: dict[str, str] = {}
    for number in range(COUNT):
        name, content = f"{number // AT_ONCE}/{number:06}", mutate(good, chance)
        dropped[name] = hashlib.sha256(content).hexdigest()
        rooms.drop(name, content)
        if number % AT_ONCE == AT_ONCE - 1:
            wait_for(lambda n=number: ended(daemon) > n - AT_ONCE, "the daemon to follow", 600)  # type: ignore[misc]
    daemon.wait_health(lambda h: ended(daemon) >= COUNT, "the end of all", 600)
    health = daemon.health()
    assert daemon.stop() == 0
    saved, quarantined = tally(rooms, "archive"), tally(rooms, "quarantine")
    print(f"{len(saved)} saved, {len(quarantined)} quarantined")
    assert {**saved, **quarantined} == dropped
    assert len(saved) + len(quarantined) == COUNT
    assert len(rooms.pictures("outbox")) == len(saved)
    assert saved
    assert quarantined
    assert all((rooms.quarantine / f"{name}.reason.json").is_file() for name in quarantined)
    assert sum(worker["restarts"] for worker in health["workers"]) == 0, f"a worker was lost:\n{daemon.log}"
    others = [
        line for line in daemon.log.splitlines() if " saved " not in line and " quarantined " not in line
    ]
    assert len(others) < 10, "decoders write to the log:\n" + "\n".join(others[:60])


def ended(daemon: Daemon) -> int:
    counts = daemon.health().get("counts", {"saved": 0, "quarantined": 0})
    return int(counts["saved"] + counts["quarantined"])


DECODER = """
import sys, warnings
from PIL import Image
from maskdrop.config import DecodeSettings
from maskdrop.decoding import BrokenPicture, at_model_size, decode
warnings.simplefilter("ignore")
Image.MAX_IMAGE_PIXELS = None
while size := sys.stdin.buffer.read(4):
    content = sys.stdin.buffer.read(int.from_bytes(size, "big"))
    try:
        picture = at_model_size(decode(content, DecodeSettings(max_pixels=10**6)), 512)
        answer = f"{picture.mode} {picture.size}"
    except BrokenPicture as error:
        answer = "broken"
    print(answer, flush=True)
"""


@pytest.fixture(scope="module")
def decoder() -> Iterator["subprocess.Popen[bytes]"]:
    """A process that decodes: a crash there is found here, and doesn't take the tests along."""
    with subprocess.Popen(
        [sys.executable, "-c", DECODER], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as p:
        yield p
        assert p.stdin is not None
        p.stdin.close()


GOOD = good_files()


@settings(max_examples=300)
@given(
    st.sampled_from(GOOD),
    st.lists(st.tuples(st.integers(0, 400), st.binary(min_size=1, max_size=8)), min_size=1, max_size=8),
    st.integers(0, 100),
)
def test_a_decoder_answers_whatever_it_is_given(
    decoder: "subprocess.Popen[bytes]", good: bytes, patches: list[tuple[int, bytes]], cut: int
) -> None:
    data = bytearray(good)
    for place, patch in patches:
        data[place : place + len(patch)] = patch
    content = bytes(data[: len(data) - cut])
    assert decoder.stdin is not None
    assert decoder.stdout is not None
    decoder.stdin.write(len(content).to_bytes(4, "big") + content)
    decoder.stdin.flush()
    assert decoder.stdout.readline().strip() in (b"RGB (512, 512)", b"broken")
