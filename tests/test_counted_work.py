"""What a picture costs, counted instead of timed: copies, decodings, messages, syncs, layers.

Who changes a number here has changed what each picture costs, and should know why.
"""

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode

from drawing import draw_face, encode
from maskdrop.config import ModelSettings, Settings
from maskdrop.folders import prepare_folders
from maskdrop.inbox.lock import InboxLock
from maskdrop.model.fused import can_fuse
from maskdrop.model.parser import load_parser
from maskdrop.model.quantised import can_quantise
from maskdrop.preprocess import prepare
from maskdrop.save import Saver
from maskdrop.ticket import Identity, Prepare, Prepared, Save, Saved, Stage, Ticket
from maskdrop.topology.slots import Slots
from maskdrop.topology.worker import Workplace
from running import FULL, Daemon, Rooms

Start = Callable[..., Daemon]


class Operators(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts what PyTorch is asked to compute."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[function.overloadpacket.__name__] += 1
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("fused", [True, False])
def test_a_picture_goes_through_each_convolution_once_and_through_nothing_else_of_weight(
    tiny_weights: Path, count: int, fused: bool
) -> None:
    """Where PyTorch reaches all of oneDNN, convolutions take along the ReLU behind them, and the last of each
    of the eight blocks the sum with what came in too; the one ReLU left is of a number for each channel."""
    parser = load_parser(ModelSettings(weights=tiny_weights, channels_last=fused), "cpu")
    pictures = np.full((count, 512, 512, 3), 90, dtype=np.uint8)
    with Operators() as operators:
        parser.parse(pictures)
    counts = operators.counts
    if fused and can_fuse(torch.float32):
        assert counts["_convolution_pointwise"] == 24 * count
        assert counts["_convolution_pointwise_"] == 8 * count
        assert (counts["conv2d"], counts["relu_"], counts["max_pool2d"]) == (0, 0, 0)
        assert counts["maximum"] == 4 * count
    else:
        assert counts["conv2d"] == 32 * count
        assert counts["max_pool2d"] == count
    assert counts["relu"] == count
    assert not [name for name in counts if "norm" in name or "upsample_bilinear" in name]


@pytest.mark.skipif(not can_quantise(), reason="no whole numbers of 8 bits here")
@pytest.mark.parametrize("count", [1, 3])
def test_in_int8_nothing_of_weight_is_left_in_other_numbers(count: int) -> None:
    """All but the convolutions of a number for each channel, and of the scores: six. Of the two parts that
    features are fused from, each is one. Plain numbers become codes behind three blocks whose shortcut may be
    below 0, before three convolutions whose input is weighed or added, and before the scores."""
    parser = load_parser(ModelSettings(precision="int8"), "cpu")
    pictures = np.full((count, 512, 512, 3), 90, dtype=np.uint8)
    parser.parse(pictures)  # weights are laid out
    with Operators() as operators:
        parser.parse(pictures)
    counts = operators.counts
    assert counts["qconv2d_pointwise"] == 27 * count
    assert counts["_convolution_pointwise"] + counts["conv2d"] == 6 * count
    assert counts["round_"] == 7 * count
    assert counts["maximum"] == 4 * count
    assert counts["max_pool2d"] + counts["qconv_prepack"] + counts["_convolution_pointwise_"] == 0
    assert not [name for name in counts if "norm" in name or "upsample_bilinear" in name]


def pictures_made(act: Callable[[], object]) -> int:
    """How many pictures Pillow's core makes: each is memory of that size, written once."""
    core: Any = vars(Image)["core"]
    before = int(core.get_stats()["new_count"])
    act()
    return int(core.get_stats()["new_count"]) - before


@pytest.mark.parametrize(("side", "decoding", "saving"), [(512, 1, 5), (640, 3, 9)])
def test_pixels_are_copied_no_more_than_they_must(
    rooms: Rooms, side: int, decoding: int, saving: int
) -> None:
    """At the slot's own size: one picture decoded, one masked, by a mask that is four for Pillow: the
    labels where they lie are two, of no memory of their own, and what is made of them two. Else it is
    scaled in two passes, and decoded again to be masked at its own size, by labels that are scaled (three
    for Pillow)."""
    path = rooms.drop("p.jpg", encode(draw_face(1, side, side)))
    ticket = Ticket(1, "p.jpg", Identity.of(path.stat()))
    folders = {name: getattr(rooms, name) for name in ("inbox", "outbox", "quarantine", "archive")}
    settings = Settings.model_validate({"folders": folders})
    slots = Slots(1, 512)
    Image.init()
    told: list[Any] = []
    assert pictures_made(lambda: told.append(prepare(Prepare(ticket, 0), settings, slots))) == decoding
    (prepared,) = told
    assert isinstance(prepared, Prepared)
    saver = Saver(Workplace(Stage.SAVE, "save-0", settings, prepare_folders(settings), slots, InboxLock(-1)))
    made = pictures_made(lambda: told.append(saver.save(Save(ticket, 0, prepared.facts))))
    assert isinstance(told[1], Saved)
    assert made == saving


def test_messages_syncs_and_reads_of_a_picture(start: Start, rooms: Rooms) -> None:
    """Two pictures one after the other: three tasks and four reports each. Five syncs: of the result
    and the outbox, the archive, the folder of claimed originals, the inbox. A picture of the slot's
    own size is read once, another one once more when it is saved."""
    counting = Path(__file__).parent / "counting"
    counts = rooms.base / "counts"
    paths = os.pathsep.join([str(counting), os.environ.get("PYTHONPATH", "")])
    daemon = start(
        settings=FULL, env={**os.environ, "PYTHONPATH": paths, "MASKDROP_COUNTS": str(counts)}
    ).wait_ready()
    rooms.drop("warm.jpg", encode(draw_face(1)))
    daemon.wait_count("saved", 1)
    for index, (side, reads) in enumerate([(512, 1), (300, 2)]):
        name = f"{side}.jpg"
        before = len(counts.read_text().splitlines())
        rooms.drop(name, encode(draw_face(2, side, side)))
        daemon.wait_count("saved", 2 + index)
        lines = [line.partition(" ") for line in counts.read_text().splitlines()[before:]]
        messages = [int(size) for kind, _, size in lines if kind == "pipe"]
        assert len(messages) == 7
        assert sum(messages) < 2_000
        assert len([kind for kind, _, _ in lines if kind == "fsync"]) == 5
        opened = [what for kind, _, what in lines if kind == "open"]
        in_stages = opened.count(name)
        assert in_stages == reads + 1  # and by the supervisor, to see that nobody writes
    assert daemon.stop() == 0
