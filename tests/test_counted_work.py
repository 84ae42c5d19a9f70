"""What a picture costs, counted instead of timed: copies, memory, decodings, messages, syncs, layers.

Who changes a number here has changed what each picture costs, and should know why.
"""

import os
import pickle
from collections import Counter
from collections.abc import Callable
from dataclasses import astuple, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from counted import Operators, large_arrays, pictures_made
from drawing import draw_face, encode
from maskdrop.config import ModelSettings, Settings
from maskdrop.folders import prepare_folders
from maskdrop.inbox.lock import InboxLock
from maskdrop.infer import FirstLook, compute
from maskdrop.model.bisenet import BiSeNet
from maskdrop.model.fused import can_fuse
from maskdrop.model.load import load_network
from maskdrop.model.parser import load_parser
from maskdrop.model.quantised import can_quantise
from maskdrop.model.weights import save_weights
from maskdrop.model.winners import labels_of
from maskdrop.preprocess import Preparer
from maskdrop.save import Saver
from maskdrop.ticket import Identity, Infer, Prepare, Prepared, Report, Save, Saved, Stage, Ticket
from maskdrop.topology.slots import SharedSlots
from maskdrop.topology.worker import Workplace
from running import FULL, Daemon, Rooms
from weights_for_tests import EMBEDDED

Start = Callable[..., Daemon]


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


@pytest.fixture
def one_class(tmp_path: Path) -> Path:
    """The product's network, but that one class wins everywhere: no border runs through any cell, so nothing
    that is counted hangs on how a processor rounds."""
    path, loaded = tmp_path / "one.safetensors", load_network(EMBEDDED)
    assert isinstance(loaded.network, BiSeNet)
    weights = loaded.network.conv_out.conv_out.weight.data
    weights.copy_(-weights.abs())
    weights[5].neg_()
    save_weights(path, loaded.network, loaded.card)
    return path


FUSED = {"_convolution_pointwise": 19, "maximum": 2, "mul": 2, "add": 2, "addcmul": 1}
IN_SINGLE_STEPS = {"conv2d": 27, "max_pool2d": 1, "mul": 3, "add": 3, "contiguous": 1}
ALWAYS = {"new_empty": 1, "__xor__": 1, "upsample_nearest2d": 2, "cat": 1, "clone": 1, "index_select": 1}
BF16 = {"_convolution_pointwise": 18, "mul": 1, "add": 1, "to": 1}
"""Large tensors made for a picture. Half as wide numbers make three of them small, and the scores are made
wide again for their labels."""


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(
    ("precision", "fused", "made"),
    [
        ("fp32", True, {**ALWAYS, **FUSED}),
        ("fp32", False, {**ALWAYS, **IN_SINGLE_STEPS}),
        ("bf16", True, {**ALWAYS, **FUSED, **BF16}),
    ],
)
def test_labelling_makes_each_tensor_once_and_no_array(
    one_class: Path, precision: Any, fused: bool, made: dict[str, int], count: int
) -> None:
    """In the inference worker, from slot to slot. Written over what is there: the border's four sides and
    the pixels inside it; labels go into the slot in one step of numpy's."""
    if fused and not can_fuse(torch.bfloat16 if precision == "bf16" else torch.float32):
        pytest.skip("this PyTorch can't take along what follows a convolution here")
    model = ModelSettings(weights=one_class, channels_last=fused, precision=precision)
    settings = Settings.model_validate({"folders": {"inbox": "/i", "outbox": "/o"}, "model": model})
    parser, slots, look = load_parser(model, "cpu"), SharedSlots(count, 512), FirstLook(settings)
    slots.pictures[:] = 90
    tasks, told = [Infer(slot, slot) for slot in range(count)], list[Report]()

    def label() -> None:
        compute(tasks, parser, slots, SimpleNamespace(report=told.append), look)

    with Operators():
        label()  # weights are laid out, what is imported late is there, for counting too
    with Operators() as operators:
        arrays = large_arrays(label)
    assert (slots.labels == 5).all()
    assert +operators.large == Counter({name: number * count for name, number in made.items()})
    assert operators.counts["copy_"] == 5 * count
    assert arrays == []


@pytest.mark.parametrize("pieces", [1, 2])
def test_labels_take_memory_by_the_borders_in_them(pieces: int) -> None:
    """A border from top to bottom runs through 63 cells, and 128 are interpolated at once, so two borders
    are a piece: their scores on the left, on the right and at each pixel, and the pixels' numbers."""
    scores = torch.zeros(1, 19, 64, 64)
    for border in range(2 * pieces):
        scores[0, border + 1, :, 12 * (border + 1) :] = border + 1
    labels_of(scores, 512)  # what is the same for all pictures is made once
    with torch.inference_mode(), Operators() as operators:
        labels_of(scores, 512)
    assert +operators.large == Counter({"clone": 1, "index_select": 1, "lerp": 3 * pieces, "add": pieces})


@dataclass(frozen=True)
class Copies:
    """What a stage makes of a picture: pictures in Pillow's core, and KiB of each large array of Python's."""

    pictures: int
    arrays: tuple[int, ...]

    @classmethod
    def by(cls, act: Callable[[], object]) -> "Copies":
        arrays: list[int] = []
        return cls(pictures_made(lambda: arrays.extend(large_arrays(act))), tuple(arrays))


@pytest.mark.parametrize(
    ("side", "decoding", "saving"),
    [(512, Copies(1, (768,)), Copies(5, ())), (640, Copies(3, (768,)), Copies(9, (1200, 400)))],
)
def test_pixels_are_copied_no_more_than_they_must(
    rooms: Rooms, side: int, decoding: Copies, saving: Copies
) -> None:
    """At the slot's own size: one picture decoded, one masked, by a mask that is four for Pillow: the
    labels where they lie are two, of no memory of their own, and what is made of them two. Else it is
    scaled in two passes, and decoded again to be masked at its own size, by labels that are scaled (three
    for Pillow). What Pillow decoded comes into an array by one copy, 768 KiB for the slot, 1,200 to be
    masked, and so do scaled labels."""
    path = rooms.drop("p.jpg", encode(draw_face(1, side, side)))
    ticket = Ticket(1, "p.jpg", Identity.of(path.stat()))
    folders = {name: getattr(rooms, name) for name in ("inbox", "outbox", "quarantine", "archive")}
    settings = Settings.model_validate({"folders": folders})
    slots = SharedSlots(1, 512)
    Image.init()
    told: list[Any] = []
    assert Copies.by(lambda: told.append(Preparer(settings, slots).prepare(Prepare(ticket, 0)))) == decoding
    (prepared,) = told
    assert isinstance(prepared, Prepared)
    saver = Saver(Workplace(Stage.SAVE, "save-0", settings, prepare_folders(settings), slots, InboxLock(-1)))
    assert Copies.by(lambda: told.append(saver.save(Save(ticket, 0, prepared.facts)))) == saving
    assert isinstance(told[1], Saved)


MESSAGES = {
    "Prepare": 190,
    "Prepared": 233,
    "Infer": 94,
    "Started": 67,
    "Inferred": 112,
    "Save": 427,
    "Saved": 107,
}
"""Bytes of each message of a picture whose name has seven letters, less what its file's device, inode, size
and time take, which are as long as the file system has them. Four of them are the message's own length."""


def kind_and_length(sent: bytes) -> tuple[str, int]:
    """Of a message, as in `MESSAGES`."""
    message = pickle.loads(sent[4:])
    ticket = getattr(message, "ticket", None)
    numbers = astuple(ticket.identity) if ticket else ()
    return type(message).__name__, len(sent) - sum(pickled_length(number) for number in numbers)


def pickled_length(number: int) -> int:
    """Of an int in a pickle, which has three bytes around it (pickletools: PROTO 2 and STOP)."""
    return len(pickle.dumps(number, 2)) - 3


def test_messages_syncs_and_reads_of_a_picture(start: Start, rooms: Rooms) -> None:
    """Two pictures one after the other: three tasks and four reports each, of so many bytes. Five syncs: of
    the result and the outbox, the archive, the folder of claimed originals, the inbox. A picture of the
    slot's own size is read once, another one once more when it is saved."""
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
        messages = [kind_and_length(bytes.fromhex(sent)) for kind, _, sent in lines if kind == "pipe"]
        assert sorted(messages) == sorted(MESSAGES.items())
        assert len([kind for kind, _, _ in lines if kind == "fsync"]) == 5
        opened = [what for kind, _, what in lines if kind == "open"]
        in_stages = opened.count(name)
        assert in_stages == reads + 1  # and by the supervisor, to see that nobody writes
    assert daemon.stop() == 0
