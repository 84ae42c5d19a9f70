"""What is written for a picture, and under which name."""

import hashlib
import io
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from drawing import draw_face, encode, face_bytes
from maskdrop.config import FolderSettings
from maskdrop.durable import try_writing
from maskdrop.folders import Folders
from maskdrop.model.load import load_network
from maskdrop.outbox import Outbox
from maskdrop.parts import PALETTE
from maskdrop.results.names import Result
from maskdrop.results.provenance import source_of
from maskdrop.ticket import Identity, Ticket
from running import FULL, QUICK, Daemon, Rooms
from waiting import wait_for

Start = Callable[..., Daemon]

KEPT = [1, 2, 3, 10, 12, 13]
"""The article's parts: skin, brows, nose, lips."""


def article_mask(path: Path, weights: Path) -> tuple[np.ndarray, np.ndarray]:
    """The article's computation, plainly: one picture, fp32, labels from the full scores.

    Returns:
        The masked picture, uint8 (512, 512, 3), and the labels (512, 512).
    """
    network = load_network(weights).network
    image = Image.open(path).resize((512, 512), Image.Resampling.BILINEAR).convert("RGB")
    pixels = np.array(image)
    tensor = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
    mean, deviation = torch.tensor((0.485, 0.456, 0.406)), torch.tensor((0.229, 0.224, 0.225))
    tensor = (tensor - mean[:, None, None]) / deviation[:, None, None]
    with torch.no_grad():
        labels = network(tensor[None])[0].numpy().argmax(0)
    masked = np.zeros_like(pixels)
    chosen = np.isin(labels, KEPT)
    masked[chosen] = pixels[chosen]
    return masked, labels


@pytest.fixture
def real_or_drawn(faces: list[Path], tmp_path: Path) -> list[Path]:
    """Real faces where the machine has them, else drawn ones."""
    if faces:
        return faces[:6]
    paths = [tmp_path / f"drawn-{seed}.png" for seed in range(6)]
    for seed, path in enumerate(paths):
        draw_face(seed, 500, 620).save(path)
    return paths


@pytest.mark.parametrize("count", [1, 3])
def test_what_saving_costs_is_measured_with_as_many_waits_for_the_disk(
    rooms: Rooms, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    waits: list[int] = []
    fsync = os.fsync

    def counted(descriptor: int) -> None:
        waits.append(descriptor)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", counted)
    folders = Folders(rooms.inbox, rooms.outbox, rooms.quarantine, rooms.archive)
    outbox = Outbox(folders, FolderSettings(inbox=rooms.inbox, outbox=rooms.outbox))
    for name in ("a.jpg", "b.jpg"):  # the first one makes a folder in the inbox
        waits.clear()
        ticket = Ticket(1, name, Identity.of(rooms.drop(name, face_bytes(1)).stat()))
        outbox.publish(ticket, "0" * 64, [Result(f".{number}.jpg", b"face") for number in range(count)])
        outbox.put_away(ticket)
    saving = len(waits)
    try_writing(rooms.outbox, [b"face"] * count)
    assert len(waits) == 2 * saving


def test_the_model_size_mask_is_the_articles_pixel_for_pixel(
    start: Start, rooms: Rooms, real_or_drawn: list[Path]
) -> None:
    embedded = Path(__file__).parent.parent / "daemon/maskdrop/weights/faces.safetensors"
    settings = FULL + "[model]\nprecision = 'fp32'\n[save]\noutputs = ['model', 'labels']\nformat = 'png'\n"
    daemon = start("--weights", str(embedded), settings=settings).wait_ready()
    for index, path in enumerate(real_or_drawn):
        rooms.drop(f"{index}{path.suffix}", path.read_bytes())
    daemon.wait_count("saved", len(real_or_drawn))
    assert daemon.stop() == 0
    for index, path in enumerate(real_or_drawn):
        expected, labels = article_mask(path, embedded)
        assert len(np.unique(labels)) > 2
        assert 0 < np.isin(labels, KEPT).mean() < 1
        with Image.open(rooms.outbox / f"{index}.model.png") as image:
            assert image.size == (512, 512)
            assert np.array_equal(np.asarray(image), expected)


@pytest.mark.parametrize(("width", "height"), [(300, 420), (512, 512)])
def test_every_output_in_every_format(start: Start, rooms: Rooms, width: int, height: int) -> None:
    settings = FULL + (
        "[save]\noutputs = ['face', 'model', 'cutout', 'labels', 'overlay']\nformat = 'png'\n"
        "keep = ['background', 'hair', 'hat', 'cloth', 'neck']\nsuffix = { face = '.done' }\n"
    )
    original = draw_face(5, width, height)
    daemon = start(settings=settings).wait_ready()
    rooms.drop("p.png", encode(original, "PNG"))
    daemon.wait_count("saved", 1)
    assert daemon.stop() == 0
    names = ["p.cutout.png", "p.done.png", "p.labels.png", "p.model.png", "p.overlay.png"]
    assert rooms.pictures("outbox") == names
    images = {name: Image.open(rooms.outbox / name) for name in names}
    labels = np.asarray(images["p.labels.png"])
    assert images["p.labels.png"].mode == "P"
    assert (images["p.labels.png"].getpalette() or [])[:57] == [c for colour in PALETTE for c in colour]
    assert labels.shape == (height, width)
    assert len(np.unique(labels)) > 1
    keep = np.isin(labels, [0, 17, 18, 16, 14])
    assert 0 < keep.mean() < 1
    pixels = np.asarray(original)
    assert np.array_equal(np.asarray(images["p.done.png"]), pixels * keep[:, :, None])
    cutout = np.asarray(images["p.cutout.png"])
    assert np.array_equal(cutout[:, :, 3], keep * 255)
    assert np.array_equal(cutout[:, :, :3], pixels * keep[:, :, None])
    tinted = np.asarray(images["p.overlay.png"]).astype(int)
    background = labels == 0
    assert np.array_equal(tinted[background], pixels[background])
    colours = np.array(PALETTE)[labels]
    assert np.abs(tinted - (pixels.astype(int) + colours) / 2)[~background].max() <= 0.5
    assert images["p.model.png"].size == (512, 512)


@pytest.mark.parametrize(("form", "ending", "kind"), [("jpeg", ".jpg", "JPEG"), ("webp", ".webp", "WEBP")])
def test_formats(start: Start, rooms: Rooms, form: str, ending: str, kind: str) -> None:
    settings = QUICK + f"[save]\nformat = '{form}'\noutputs = ['face', 'cutout', 'labels']\nquality = 80\n"
    daemon = start(settings=settings).wait_ready()
    content = face_bytes(1, "PNG")
    rooms.drop("p.png", content)
    daemon.wait_count("saved", 1)
    cutout = "p.cutout.png" if form == "jpeg" else f"p.cutout{ending}"
    assert rooms.pictures("outbox") == sorted([f"p{ending}", cutout, "p.labels.png"])
    for name, expected in ((f"p{ending}", kind), ("p.labels.png", "PNG")):
        with Image.open(rooms.outbox / name) as image:
            assert image.format == expected
            assert image.size == (160, 200)
        assert source_of(rooms.outbox / name) == hashlib.sha256(content).hexdigest()
    with Image.open(rooms.outbox / cutout) as image:
        assert image.mode == "RGBA"


def test_what_a_format_has_no_room_for_is_told_and_costs_no_worker(start: Start, rooms: Rooms) -> None:
    daemon = start(settings=QUICK + "[save]\nformat = 'webp'\n").wait_ready()
    rooms.drop("wide.png", encode(Image.new("L", (17_000, 4), 99), "PNG"))
    daemon.wait_count("quarantined", 1)
    reason = json.loads((rooms.quarantine / "wide.png.reason.json").read_text())
    assert (reason["stage"], reason["attempts"]) == ("save", 0)
    assert "17000 x 4 pixels can't be written as webp" in reason["message"]
    assert "choose another save.format" in reason["message"]
    assert [worker["restarts"] for worker in daemon.health()["workers"]] == [0] * 3
    assert daemon.stop() == 0


def test_the_quality_is_the_configured_one(start: Start, rooms: Rooms) -> None:
    daemon = start(settings=QUICK + "[save]\nquality = 10\n").wait_ready()
    rooms.drop("a.jpg", face_bytes(1))
    daemon.wait_count("saved", 1)
    with Image.open(rooms.outbox / "a.jpg") as image:
        coarsest = max(image.quantization[0])  # type: ignore[attr-defined]
    assert coarsest > 100  # 5 at quality 95 (libjpeg's jcparam.c)
    assert daemon.stop() == 0


def test_the_default_is_the_own_size_upright(start: Start, rooms: Rooms) -> None:
    image = draw_face(1, 300, 200)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    rooms.drop("turned.jpg", encode(image, exif=exif))
    wide = io.BytesIO()
    Image.new("L", (3000, 20), 99).save(wide, "PNG")
    rooms.drop("wide.png", wide.getvalue())
    rooms.drop("dot.png", encode(Image.new("RGBA", (1, 1), (1, 2, 3, 4)), "PNG"))
    daemon = start().wait_ready()
    daemon.wait_count("saved", 3)
    sizes = {}
    for name in rooms.pictures("outbox"):
        with Image.open(rooms.outbox / name) as result:
            sizes[name] = result.size
            assert 0x0112 not in result.getexif()
    assert sizes == {"turned.jpg": (200, 300), "wide.jpg": (3000, 20), "dot.jpg": (1, 1)}


def test_no_result_of_another_picture_is_ever_overwritten(start: Start, rooms: Rooms) -> None:
    contents = {"a.jpg": face_bytes(1), "a.png": face_bytes(2, "PNG"), "a.webp": face_bytes(3, "WEBP")}
    (rooms.outbox / "b.jpg").write_bytes(b"somebody else's file")
    daemon = start().wait_ready()
    for name, content in contents.items():
        rooms.drop(name, content)
    rooms.drop("b.jpg", face_bytes(4))
    daemon.wait_count("saved", 4)
    results = rooms.pictures("outbox")
    assert len(results) == 5
    assert (rooms.outbox / "b.jpg").read_bytes() == b"somebody else's file"
    digests = {source_of(rooms.outbox / name) for name in results} - {None}
    originals = [*contents.values(), face_bytes(4)]
    assert digests == {hashlib.sha256(content).hexdigest() for content in originals}

    before = {name: (rooms.outbox / name).read_bytes() for name in results}
    rooms.drop("a.jpg", face_bytes(7))  # the name again, another picture
    daemon.wait_count("saved", 5)
    after = rooms.pictures("outbox")
    assert len(after) == 6
    assert all((rooms.outbox / name).read_bytes() == content for name, content in before.items())
    assert sorted(rooms.pictures("archive"))[:2] == ["a.jpg", "a.png"]
    assert (rooms.archive / "a~2.jpg").read_bytes() == face_bytes(7)

    rooms.drop("a.jpg", contents["a.jpg"])  # the same picture again
    daemon.wait_count("saved", 6)
    assert rooms.pictures("outbox") == after
    assert (rooms.archive / "a~3.jpg").read_bytes() == contents["a.jpg"]


def test_originals_are_deleted_where_so_configured(start: Start, rooms: Rooms) -> None:
    daemon = start(settings=QUICK + "[folders]\nafter = 'delete'\nfile_mode = '0600'\n").wait_ready()
    rooms.drop("sub/a.jpg", face_bytes(1))
    daemon.wait_count("saved", 1)
    assert rooms.pictures("inbox") == rooms.pictures("archive") == []
    assert rooms.pictures("outbox") == ["sub/a.jpg"]
    assert (rooms.outbox / "sub/a.jpg").stat().st_mode & 0o777 == 0o600


def test_nothing_but_results_is_left_in_the_outbox(start: Start, rooms: Rooms) -> None:
    daemon = start().wait_ready()
    for index in range(10):
        rooms.drop(f"{index}.jpg", face_bytes(index))
    daemon.wait_count("saved", 10)
    assert daemon.stop() == 0
    assert sorted(path.name for path in rooms.outbox.iterdir()) == [f"{i}.jpg" for i in range(10)]


@pytest.mark.parametrize("room", ["outbox", "archive"])
def test_a_vanished_folder_pauses_the_work_until_it_is_back(start: Start, rooms: Rooms, room: str) -> None:
    daemon = start().wait_ready()
    folder: Path = getattr(rooms, room)
    folder.rename(rooms.base / "away")
    for index in range(40):
        rooms.drop(f"{index}.jpg", face_bytes(index))
    health = daemon.wait_health(lambda h: h["state"] == "degraded", "state degraded")
    assert str(folder) in health["reason"]
    assert "taking no more work" in daemon.log
    assert not folder.exists()
    assert len(rooms.pictures("inbox")) == 40
    (rooms.base / "away").rename(folder)
    daemon.wait_count("saved", 40)
    daemon.wait_health(lambda h: h["state"] == "running", "recovery")
    assert rooms.pictures("outbox") == rooms.pictures("archive")
    assert rooms.pictures("quarantine") == []


@pytest.fixture
def small_disk(rooms: Rooms) -> Iterator[Path]:
    """A tmpfs of 256 KiB mounted as the outbox."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(rooms.outbox)], capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip("mounting a tmpfs needs root")
    yield rooms.outbox
    subprocess.run(["umount", "--lazy", str(rooms.outbox)], check=True)


def test_a_full_disk_pauses_the_work_until_there_is_room(
    start: Start, rooms: Rooms, small_disk: Path
) -> None:
    filler = small_disk / ".filler"
    filler.write_bytes(bytes(240 * 1024))
    daemon = start().wait_ready()
    for index in range(30):
        rooms.drop(f"{index}.jpg", face_bytes(index, width=300, height=300))
    health = daemon.wait_health(lambda h: h["state"] == "degraded", "state degraded")
    assert "No space left on device" in health["reason"]
    wait_for(  # what is just being moved is seen in neither folder, or in both
        lambda: len(rooms.pictures("inbox")) + len(rooms.pictures("archive")) == 30, "every picture somewhere"
    )
    assert rooms.pictures("inbox")
    assert rooms.pictures("quarantine") == []
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    daemon.wait_count("saved", 30)
    assert daemon.stop() == 0


def test_a_read_only_outbox_pauses_the_work_and_a_drain_leaves_all(
    start: Start, rooms: Rooms, small_disk: Path
) -> None:
    daemon = start().wait_ready()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for index in range(30):
        rooms.drop(f"{index}.jpg", face_bytes(index))
    health = daemon.wait_health(lambda h: h["state"] == "degraded", "state degraded")
    assert "Read-only file system" in health["reason"]
    assert daemon.stop() == 1
    assert daemon.health()["reason"] == "drain cut short"
    assert len(rooms.pictures("inbox")) == 30
    subprocess.run(["mount", "-o", "remount,rw,size=64m", str(small_disk)], check=True)
    start().wait_ready().wait_count("saved", 30)
