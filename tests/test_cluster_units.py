"""The parts of a batch on a cluster that need no cluster: inputs, shape, manifest, attempts, cargo."""

import codecs
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from maskdrop.cluster.manifest import _renewed
from maskdrop.cluster.order import Words, order_of
from maskdrop.leave_alone import LeaveAlone

pytest.importorskip("pyarrow")

import pyarrow as pa
from pyarrow import parquet

from maskdrop.batch.ledger import Outcome
from maskdrop.cluster.access import Access
from maskdrop.cluster.attempts import STOPPED, CannotLabel, Register, attempted
from maskdrop.cluster.broken import _is_same as is_same
from maskdrop.cluster.cargo import End, Piece, Pixels, Work, packed, stacked, unpacked
from maskdrop.cluster.decoding import decode_block
from maskdrop.cluster.inputs import find_inputs
from maskdrop.cluster.job import Job
from maskdrop.cluster.labelling import Labeller
from maskdrop.cluster.manifest import PART_ROWS, Manifest
from maskdrop.cluster.shape import shape_for
from maskdrop.cluster.stores import FolderStore
from maskdrop.config import FolderSettings, Settings
from maskdrop.config_file import ConfigurationError
from maskdrop.durable import FolderTrouble
from maskdrop.model.parser import load_parser
from maskdrop.results.names import Result
from maskdrop.ticket import Absence, Fault, Stage

ANYWHERE = {"inbox": "/nonexistent/in", "outbox": "/nonexistent/out"}
FOLDERS = FolderSettings.model_validate(ANYWHERE)


def settings(**tables: dict[str, Any]) -> Settings:
    return Settings.model_validate({"folders": ANYWHERE, **tables})


def listed(named: str) -> list[str]:
    return sorted(one.path for one in find_inputs(named, Access(), FOLDERS))


def test_a_glob_and_a_list_mean_what_they_say(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.png", "x/a1.jpg", "x/y/a2.jpg", "x/y/b[1].jpg", ".hidden.jpg", "x/c.part"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    everything = ["a.jpg", "b.png", "x/a1.jpg", "x/y/a2.jpg", "x/y/b[1].jpg"]
    assert listed(str(tmp_path)) == everything
    assert listed(f"{tmp_path}/*.jpg") == ["a.jpg"]
    assert listed(f"{tmp_path}/**/a?.jpg") == ["x/a1.jpg", "x/y/a2.jpg"]
    assert listed(f"{tmp_path}/**/[!b]*.*") == ["a.jpg", "x/a1.jpg", "x/y/a2.jpg"]
    assert listed(f"{tmp_path}/x/**") == ["a1.jpg", "y/a2.jpg", "y/b[1].jpg"]

    names = tmp_path / "list.txt"
    names.write_bytes(b"a.jpg\r\n\nx/./a1.jpg\na.jpg\nnot-there-\xff.jpg\n")
    assert listed(str(names)) == ["a.jpg", os.fsdecode(b"not-there-\xff.jpg"), "x/a1.jpg"]
    inputs = find_inputs(str(names), Access(), FOLDERS)
    assert inputs.store.read("x/a1.jpg", 100) == b"x"
    names.write_bytes(codecs.BOM_UTF8 + b"a.jpg\n")
    assert listed(str(names)) == ["a.jpg"]
    names.write_text(f"{tmp_path}/a.jpg\n")
    assert listed(str(names)) == [f"{tmp_path}/a.jpg".lstrip("/")]
    assert find_inputs(str(names), Access(), FOLDERS).store.read(listed(str(names))[0], 100) == b"x"
    names.write_text("s3://bucket/a//b.jpg\n")
    assert listed(str(names)) == ["bucket/a//b.jpg"]  # no other object than it
    for line, wanted in (
        ("../a.jpg", "leads upwards"),
        (".", "names no file; name one"),
        ("/", "names no file"),
        ("s3://", "names no file"),
        ("s3:///a.jpg", "names no bucket; write s3://BUCKET/KEY"),
        ("S3://bucket/a.jpg", "nothing can be read by S3://; write s3://BUCKET/KEY in small letters"),
        ("gs://bucket/a.jpg\ns3://bucket/b.jpg", "line 'gs://bucket/a.jpg': nothing can be read by gs://"),
    ):
        names.write_text(f"{line}\n")
        with pytest.raises(ConfigurationError, match=wanted):
            find_inputs(str(names), Access(), FOLDERS)
    with pytest.raises(ConfigurationError, match="nothing matches it; mend the glob"):
        listed(f"{tmp_path}/**/*.webp")
    for glob in ("s3://buck*/x", "s3://*", "s3:///x*"):
        with pytest.raises(ConfigurationError, match="names no bucket; write s3://BUCKET/PREFIX"):
            listed(glob)


def test_brackets_of_a_glob_hold_characters_and_what_means_nothing_is_told(tmp_path: Path) -> None:
    for name in ("[.jpg", "\\.jpg", "a.jpg", "-.jpg", "^.jpg", "x/&.jpg", "ab.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert listed(f"{tmp_path}/[[]*") == ["[.jpg"]
        assert listed(f"{tmp_path}/[\\].jpg") == ["\\.jpg"]
        assert listed(f"{tmp_path}/[[a\\].jpg") == ["[.jpg", "\\.jpg", "a.jpg"]
        assert listed(f"{tmp_path}/[!a[\\].jpg") == ["-.jpg", "^.jpg"]
        assert listed(f"{tmp_path}/[a^].jpg") == ["^.jpg", "a.jpg"]
        assert listed(f"{tmp_path}/[b--].jpg") == ["-.jpg"]
        with pytest.raises(ConfigurationError, match="nothing matches it"):
            listed(f"{tmp_path}/x[+-9]*")  # a slash is among them
    for glob in (f"{tmp_path}/[z-a].jpg", "s3://bucket/[z-a].jpg"):
        with pytest.raises(ConfigurationError, match=r"\[z-a\]\.jpg'?: is no glob \(bad char.*; mend it; "):
            find_inputs(glob, Access(), FOLDERS)


@pytest.mark.parametrize("content", ["a.jpg\nb.jpg\n".encode("utf-16"), b"\xff\xd8\xff\xe0\0\x10JFIF"])
def test_a_file_that_is_no_list_is_told(tmp_path: Path, content: bytes) -> None:
    """No file has such a name: every task that looked for it would fail."""
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"list\.txt: is no list of names; save it as UTF-8 text"):
        find_inputs(str(tmp_path / "list.txt"), Access(), FOLDERS)


def test_a_list_that_cannot_be_read_is_told() -> None:
    with pytest.raises(ConfigurationError, match="Input/output error; name a folder or a list file that you"):
        find_inputs("/proc/self/mem", Access(), FOLDERS)


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """By a process that may not, even as root."""
    (tmp_path / "closed\n").mkdir(mode=0)
    (tmp_path / "a.jpg").write_bytes(b"x")
    bound = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    done = subprocess.run([*bound, sys.executable, "-c", GOING_THROUGH, str(tmp_path)], capture_output=True)
    assert done.stdout == b"['a.jpg'] 1\n"
    assert done.stderr.decode() == f"{tmp_path}/closed\\n can't be read: Permission denied\n"


GOING_THROUGH = """
import sys
from maskdrop.cluster.access import Access
from maskdrop.cluster.inputs import find_inputs
from maskdrop.config import FolderSettings
folders = FolderSettings.model_validate({"inbox": "/nonexistent/in", "outbox": "/nonexistent/out"})
inputs = find_inputs(sys.argv[1], Access(), folders)
print([one.path for one in inputs], inputs.unread)
"""


def test_a_line_that_leads_through_a_link_is_left_and_told_why(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.jpg").write_bytes(b"x")
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "list.txt").write_text(f"{tmp_path}/link/a.jpg\n")
    inputs = find_inputs(str(tmp_path / "list.txt"), Access(), FOLDERS)
    (one,) = inputs
    with pytest.raises(LeaveAlone, match="links on its way are not followed"):
        inputs.store.read(one.path, 100)


def test_what_is_not_written_leaves_nothing_under_another_name(tmp_path: Path) -> None:
    store = FolderStore(tmp_path, FOLDERS)
    store.put("a.jpg", b"first")
    assert not store.put_new("a.jpg", b"second")
    (tmp_path / "folder").mkdir()
    with pytest.raises(FolderTrouble):
        store.put("folder", b"third")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jpg", "folder"]
    assert store.get("a.jpg") == b"first"


def test_a_folder_is_gone_through_across_disks_and_what_is_no_file_is_counted(tmp_path: Path) -> None:
    """As one that is only read; nothing has to be renamed from there."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "link.jpg").symlink_to("nowhere")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(tmp_path / "disk")], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("mounting needs root")
    try:
        (tmp_path / "disk" / "a.jpg").write_bytes(b"x")
        inputs = find_inputs(str(tmp_path), Access(), FOLDERS)
        assert ([one.path for one in inputs], inputs.left_alone) == (["disk/a.jpg"], 1)
    finally:
        subprocess.run(["umount", "--lazy", str(tmp_path / "disk")], check=True)


def test_a_file_is_gone_only_where_its_folder_says_so(tmp_path: Path) -> None:
    """What a folder that vanished can't tell is its own trouble, and ends the batch."""
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to(tmp_path)
    for base, path, wanted in (
        (tmp_path, "a.jpg", Absence.GONE),
        (tmp_path, "none/a.jpg", Absence.GONE),
        (tmp_path, "file/a.jpg", Absence.GONE),
        (tmp_path, "link/file", Absence.GONE),
        (tmp_path, "n" * 300, Absence.STUCK),
        (tmp_path / "vanished", "a.jpg", Absence.STUCK),
    ):
        with pytest.raises(LeaveAlone) as told:
            FolderStore(base, FOLDERS).read(path, 100)
        assert told.value.absence is wanted, path
    assert str(told.value) == f"{tmp_path}/vanished: No such file or directory"


def test_the_shape_follows_the_cluster() -> None:
    one = shape_for({"a": {"CPU": 2.0}}, settings(), 10_000)
    assert (one.actors, one.threads, one.tasks, one.block, one.on_gpu) == (2, 1, 2, 16, False)
    two = shape_for({"a": {"CPU": 1.0}, "b": {"CPU": 1.0}}, settings(), 10_000)
    assert (two.actors, two.threads, two.tasks) == (2, 1, 2)
    for shape, cores in ((one, 2), (two, 1)):  # both actors and the tasks find room where one node is left
        assert 2 * shape.actor_cpus + 2 * shape.task_cpus <= cores
    many = shape_for({"a": {"CPU": 64.0}, "b": {"CPU": 32.0}, "c": {"CPU": 0.0}}, settings(), 10_000)
    assert (many.actors, many.threads, many.tasks) == (24, 4, 12)
    assert "".join(many.homes) == 8 * "ab" + 8 * "a"  # each node as many as it has processors for
    gpus = shape_for({"a": {"CPU": 16.0, "GPU": 2.0}, "b": {"CPU": 64.0}}, settings(), 10_000)
    assert (gpus.actors, gpus.on_gpu, gpus.tasks, gpus.block, gpus.max_batch) == (2, True, None, 32, 32)
    assert gpus.actor_gpus + gpus.second_gpus == 1
    assert not gpus.homes  # who has a GPU says that already
    assert shape_for({"a": {"CPU": 2.0}}, settings(), 200).block == 7  # so that all end together
    assert shape_for({"a": {"CPU": 64.0}}, settings(), 10).actors == 3  # nobody starts for nothing
    # Ray's work for a block is shared by more where there is room for them
    for store, block in ((2**28, 16), (2**30, 34), (2**31, 64), (2**34, 64)):
        node = {"CPU": 2.0, "object_store_memory": float(store)}
        nodes = {"a": node, "b": {**node, "object_store_memory": 2.0**40}}
        assert shape_for(nodes, settings(), 10_000).block == block
    large = settings(model={"input_size": 4096})
    assert shape_for({"a": {"CPU": 2.0}}, large, 10_000).block == 1
    with pytest.raises(ConfigurationError, match="of 2 processors none is left to decode beside 2 GPUs"):
        shape_for({"a": {"CPU": 2.0, "GPU": 2.0}}, settings(), 10)
    assert shape_for({"a": {"CPU": 16.0, "GPU": 8.0}}, settings(), 10_000).actors == 8
    with pytest.raises(ConfigurationError, match="no node of the cluster has a GPU"):
        shape_for({"a": {"CPU": 2.0}}, settings(model={"device": "cuda"}), 10)
    with pytest.raises(ConfigurationError, match="Ray itself deals out the GPUs"):
        shape_for({"a": {"CPU": 2.0, "GPU": 1.0}}, settings(model={"device": "cuda:1"}), 10)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is usable here")
def test_a_gpu_that_ray_counts_and_nobody_can_use_is_told_in_one_line(tmp_path: Path) -> None:
    store = FolderStore(tmp_path, FOLDERS)
    labeller = Labeller(
        Job(settings(), store, store, None, Register()), "cuda", threads=1, max_batch=1, looks_again=False
    )
    side = settings().model.input_size
    picture = Piece(Work("a.jpg", 3), np.zeros((side, side, 3), np.uint8))
    with pytest.raises(CannotLabel, match="PyTorch can't use it; mend its driver") as told:
        labeller(packed([picture]))
    assert str(told.value).startswith("model.device = 'auto': ")


def test_pictures_for_a_gpu_are_put_where_it_takes_them_from(tiny_weights: Path, tmp_path: Path) -> None:
    """Into memory that its parser has made; a CPU labels them where they arrived."""
    store, small = FolderStore(tmp_path, FOLDERS), settings(model={"weights": tiny_weights, "input_size": 64})
    job = Job(small, store, store, None, Register())
    labeller = Labeller(job, "cpu", threads=1, max_batch=2, looks_again=False)
    pixels = np.random.default_rng(1).integers(0, 256, (2, 64, 64, 3), np.uint8)
    table = packed([Piece(Work(f"{n}.jpg", 3), one) for n, one in enumerate(pixels)])
    arrived = [piece.pixels for piece in unpacked(table) if piece.pixels is not None]
    parser = load_parser(small.model, "cpu")
    assert not labeller._places_of(arrived, parser).pictures.flags.writeable
    labeller._device = "cuda"
    places = labeller._places_of(arrived, parser)
    assert places.pictures.flags.writeable
    assert np.array_equal(places.pictures, pixels)


def test_weights_of_another_content_than_the_batch_began_with_are_refused(
    tmp_path: Path, tiny_weights: Path
) -> None:
    store, chosen = FolderStore(tmp_path, FOLDERS), settings(model={"weights": tiny_weights})
    side = chosen.model.input_size
    picture = packed([Piece(Work("a.jpg", 3), np.zeros((side, side, 3), np.uint8))])
    job = Job(chosen, store, store, None, Register(), "0" * 64)
    labeller = Labeller(job, "cpu", threads=1, max_batch=1, looks_again=False)
    with pytest.raises(CannotLabel, match=r"another content there .*; have one file"):
        labeller(picture)


def ended(path: str, outcome: Outcome = Outcome.SAVED, sha256: str = "0", error: str = "") -> Work:
    return Work(path, 3, sha256=sha256, end=End(outcome, ("r.jpg",), ("hair",), error=error))


def test_the_newest_row_of_a_picture_stays_alone(tmp_path: Path) -> None:
    store = FolderStore(tmp_path, FOLDERS)
    first = Manifest(store)
    odd = os.fsdecode(b"odd\n\xff.jpg")
    for work in (ended("a.jpg"), ended("b.jpg", Outcome.LEFT), ended(odd, Outcome.BROKEN, "1", "E")):
        first.add(work)
    first.write()
    first.write()  # nothing waits: no part without rows
    assert len(list((tmp_path / "manifest.parquet").iterdir())) == 1
    rows = Manifest(store).read()
    assert {path: row.is_done for path, row in rows.items()} == {"a.jpg": True, "b.jpg": False, odd: True}
    assert rows[odd].error == "E"

    second = Manifest(store)  # killed before it could drop the old rows
    second.add(ended("b.jpg", sha256="2"))
    second.write()
    assert {path: row.sha256 for path, row in Manifest(store).read().items()} == {
        "a.jpg": "0",
        "b.jpg": "2",
        odd: "1",
    }
    assert parquet.read_table(tmp_path / "manifest.parquet")["input"].to_pylist().count("b.jpg") == 1
    third = Manifest(store)
    third.add(ended("b.jpg", sha256="3"))
    third.write()
    Manifest(store).read()
    assert len(list((tmp_path / "manifest.parquet").iterdir())) == 2  # the second one had no row left
    assert not list(tmp_path.rglob(".*"))


@pytest.mark.parametrize("newer", [False, True])
def test_of_the_rows_of_a_picture_that_somebody_put_into_one_part_the_last_one_stays(
    tmp_path: Path, newer: bool
) -> None:
    """Unless a newer part has another one."""
    store, folder = FolderStore(tmp_path, FOLDERS), tmp_path / "manifest.parquet"
    for sha256 in ("1", "2"):
        manifest = Manifest(store)
        for name in ("a.jpg", f"{sha256}.jpg"):
            manifest.add(ended(name, sha256=sha256))
        manifest.write()
    together = parquet.read_table(folder)
    for part in folder.iterdir():
        part.unlink()
    parquet.write_table(together, folder / "all.parquet")
    if newer:
        manifest.add(ended("a.jpg", sha256="3"))
        manifest.write()
    for _ in range(2):
        rows = Manifest(store).read()
        assert {path: row.sha256 for path, row in rows.items()} == {
            "a.jpg": "3" if newer else "2",
            "1.jpg": "1",
            "2.jpg": "2",
        }
        assert parquet.read_table(folder).num_rows == 3


def test_a_part_that_cannot_be_written_is_not_tried_with_each_row(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "gone", FOLDERS)
    manifest, refused = Manifest(store), 0
    for number in range(PART_ROWS + 100):
        try:
            manifest.add(ended(f"{number}.jpg"))
        except FolderTrouble:
            refused += 1
    assert refused == 1
    store.base.mkdir()
    manifest.write()
    assert len(Manifest(store).read()) == PART_ROWS + 100


WRITING = """
import os, sys
from pathlib import Path
from maskdrop.batch.ledger import Outcome
from maskdrop.cluster import stores
from maskdrop.cluster.cargo import End, Work
from maskdrop.cluster.manifest import Manifest
from maskdrop.config import FolderSettings
folders = FolderSettings.model_validate({"inbox": "/nonexistent/in", "outbox": "/nonexistent/out"})
store = stores.FolderStore(Path(sys.argv[1]), folders)
if sys.argv[2] == "killed":
    stores.rename_over = lambda *_: os._exit(9)
if sys.argv[3] == "a part":
    manifest = Manifest(store, folder="x")
    manifest.add(Work("a.jpg", 1, end=End(Outcome.SAVED)))
    manifest.write()
else:
    store.put("x/a.jpg", b"content")
"""


@pytest.mark.parametrize("what", ["a part", "a file"])
def test_what_a_killed_process_left_half_written_is_taken_up_by_the_next_one(
    tmp_path: Path, what: str
) -> None:
    for how, code in (("killed", 9), ("in peace", 0)):
        program = [sys.executable, "-c", WRITING, str(tmp_path), how, what]
        assert subprocess.run(program, check=False).returncode == code
        (found,) = (tmp_path / "x").iterdir()
        assert (found.suffix == ".tmp") is (code != 0)


def test_what_a_process_died_at_is_not_done(tmp_path: Path) -> None:
    store = FolderStore(tmp_path, FOLDERS)
    manifest = Manifest(store)
    manifest.add(ended("broken.jpg", Outcome.BROKEN, "1", "EmptyFile"))
    manifest.add(ended("died.jpg", Outcome.BROKEN, "2", "WorkerDied"))
    manifest.write()
    rows = Manifest(store).read()
    assert {path: row.is_done for path, row in rows.items()} == {"broken.jpg": True, "died.jpg": False}


def test_a_part_that_is_written_anew_takes_the_place_of_its_old_one(tmp_path: Path) -> None:
    """In the order of parts, in the run that does so, and where the old one is still there after a crash."""
    store, folder = FolderStore(tmp_path, FOLDERS), tmp_path / "manifest.parquet"
    for sha256 in ("1", "2"):
        manifest = Manifest(store)
        for name in "abc" if sha256 == "1" else "c":
            manifest.add(ended(name, sha256=sha256))
        manifest.write()
    old = min(folder.iterdir())
    content = old.read_bytes()
    manifest = Manifest(store)
    rows = manifest.read()  # which writes the old one anew
    manifest.drop({rows["a"].part: ["a"]})
    manifest.add(ended("a", sha256="3"))
    manifest.write()
    assert not old.exists()
    old.write_bytes(content)
    for _ in range(2):
        rows = Manifest(store).read()
        assert {path: row.sha256 for path, row in rows.items()} == {"a": "3", "b": "1", "c": "2"}
        assert parquet.read_table(folder).num_rows == 3


def test_a_manifest_is_of_one_place_whose_paths_it_has(tmp_path: Path) -> None:
    """Paths are told below IN: pictures of another one would take each other's rows."""
    (tmp_path / "out").mkdir()
    store, older = FolderStore(tmp_path / "out", FOLDERS), Manifest(FolderStore(tmp_path / "out", FOLDERS))
    older.add(ended("older.jpg"))
    older.write()
    first = Manifest(store, "s3://pictures/2023")
    assert first.read().keys() == {"older.jpg"}
    first.add(ended("1.jpg"))
    first.write()
    first.drop({min(first.read().values(), key=lambda row: row.part).part: []})  # written anew
    assert Manifest(store, "s3://pictures/2023").read().keys() == {"older.jpg", "1.jpg"}
    with pytest.raises(ConfigurationError) as told:
        Manifest(store, "s3://pictures/2024").read()
    for part in (
        "s3://pictures/2023",
        "s3://pictures/2024",
        str(tmp_path / "out"),
        "give another OUT, or a sub-",
    ):
        assert part in str(told.value)


FOREIGN: dict[str, tuple[str, Callable[[Path], object]]] = {
    "cut short": ("is no part of a manifest", lambda path: path.write_bytes(b"PAR1 and no more")),
    "a table": ("has no column input", lambda path: parquet.write_table(pa.table({"a": [1]}), path)),
    "other types": (
        "its column input is of int64",
        lambda path: parquet.write_table(pa.table({"input": [1]}), path),
    ),
    "a folder": ("no regular file", lambda path: path.mkdir()),
    "a pipe": ("no regular file", os.mkfifo),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_what_is_no_part_of_a_manifest_is_told(tmp_path: Path, kind: str) -> None:
    wanted, make = FOREIGN[kind]
    (tmp_path / "manifest.parquet").mkdir()
    make(tmp_path / "manifest.parquet" / "foreign.parquet")
    with pytest.raises(ConfigurationError, match=wanted) as told:
        Manifest(FolderStore(tmp_path, FOLDERS)).read()
    assert str(tmp_path / "manifest.parquet" / "foreign.parquet") in str(told.value)
    assert "; move it elsewhere" in str(told.value)
    is_open = [os.path.realpath(each) for each in Path("/proc/self/fd").iterdir()]
    assert str(tmp_path / "manifest.parquet" / "foreign.parquet") not in is_open


def test_a_damaged_part_is_told_and_none_of_its_rows_is_another_one(tmp_path: Path) -> None:
    """Arrow takes most damage for a failed read, which would pass, and doesn't see it within a page."""
    store = FolderStore(tmp_path, FOLDERS)
    manifest = Manifest(store)
    for number in range(50):
        manifest.add(ended(f"{number}.jpg", sha256=f"{number * 7919:064x}"))
    manifest.write()
    (part,) = (tmp_path / "manifest.parquet").iterdir()
    rows, whole, told = Manifest(store).read(), part.read_bytes(), []
    for place in range(0, len(whole), 23):
        damaged = bytearray(whole)
        damaged[place] ^= 0x10
        part.write_bytes(damaged)
        try:
            assert Manifest(store).read() == rows, place
        except ConfigurationError as error:
            told.append(str(error))
    assert len(told) > len(whole) / 23 / 3  # what lies in pages, and not in what nobody asks for
    assert all(line.startswith(f"OUT = '{part}': is no part of a manifest (") for line in told)
    assert all("); move it elsewhere: pictures that only it has rows of" in line for line in told)


def test_a_part_that_was_written_without_checksums_is_read(tmp_path: Path) -> None:
    store = FolderStore(tmp_path, FOLDERS)
    manifest = Manifest(store)
    manifest.add(ended("a.jpg"))
    manifest.write()
    (part,) = (tmp_path / "manifest.parquet").iterdir()
    parquet.write_table(parquet.read_table(part), part)
    assert Manifest(store).read().keys() == {"a.jpg"}


def test_a_file_that_has_the_name_of_the_manifest_s_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "manifest.parquet").write_bytes(b"x")
    with pytest.raises(ConfigurationError) as told:
        Manifest(FolderStore(tmp_path, FOLDERS)).read()
    problem = "is no folder of a manifest's parts; move it elsewhere"
    assert f"OUT = '{tmp_path}/manifest.parquet': {problem}" in str(told.value)


def test_a_picture_whose_results_would_lie_in_the_manifest_is_left(tmp_path: Path) -> None:
    """Nothing could read it any more."""
    store = FolderStore(tmp_path, FOLDERS)
    for name in ("manifest.parquet/a.jpg", "x/manifest.parquet/a.jpg", "manifest.parquet.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"no picture")
    job = Job(settings(), store, store, None, Register())
    works = [Work(os.fspath(path.relative_to(tmp_path)), 10) for path in sorted(tmp_path.rglob("*.jpg"))]
    first, *others = unpacked(decode_block(packed(map(Piece, works)), job))
    assert first.work.end is not None
    assert (first.work.end.outcome, first.work.end.error) == (Outcome.LEFT, "UnfitName")
    assert first.work.end.message == "its results would lie in OUT's manifest.parquet; rename its folder"
    assert [piece.work.fault is not None for piece in others] == [True, True]


class Dies(BaseException):
    """Stands for a process's end at this instruction; in test_cluster.py they really die."""


def test_who_dies_again_and_again_is_found_and_nobody_else() -> None:
    register = Register()
    pieces = [Piece(Work(f"{n}.jpg", 1)) for n in range(4)]

    def act(some: list[Piece]) -> list[Piece]:
        if any(piece.work.path == "2.jpg" for piece in some):
            raise Dies
        return [Piece(replace(piece.work, sha256="done")) for piece in some]

    for _ in range(3):  # at the block, then twice alone
        with pytest.raises(Dies):
            attempted(pieces, Stage.INFER, register, 3, act)
    register.fail("infer 4 0.jpg", "ValueError: a bad one")
    done = [piece.work for piece in attempted(pieces, Stage.INFER, register, 3, act)]
    assert [work.sha256 for work in done] == ["done", "done", "", "done"]
    assert done[2].fault is not None
    assert (done[2].fault.error, done[2].attempts) == ("WorkerDied", 3)
    assert "ValueError: a bad one" in done[2].fault.message
    assert register.begin("infer 4 0.jpg", 0).deaths is None  # forgotten, once it is done


@pytest.mark.parametrize(("most", "deaths"), [(1, 1), (2, 1), (3, 2)])
def test_only_who_died_alone_is_at_fault_however_few_attempts_there_are(most: int, deaths: int) -> None:
    register = Register()
    pieces = [Piece(Work(f"{n}.jpg", 1)) for n in range(3)]

    def act(some: list[Piece]) -> list[Piece]:
        if any(piece.work.path == "1.jpg" for piece in some):
            raise Dies
        return some

    for _ in range(1 + deaths):  # at the block, and then alone
        with pytest.raises(Dies):
            attempted(pieces, Stage.SAVE, register, most, act)
    done = [piece.work.fault for piece in attempted(pieces, Stage.SAVE, register, most, act)]
    assert [fault is not None for fault in done] == [False, True, False]


def test_a_call_that_arrives_twice_is_one_attempt() -> None:
    register = Register()
    assert register.begin("b", 2, "one").deaths is register.begin("b", 2, "one").deaths is None
    assert register.begin("b", 2, "two").deaths == {}  # who had it died
    register.enter("b", 1)
    for call in ("three", "three"):
        assert register.begin("b", 2, call).deaths == {1: 1}
    assert register.stop() == 2


UNFORESEEN = """
from maskdrop.cluster.attempts import Register, attempted
from maskdrop.cluster.cargo import Piece, Work
from maskdrop.ticket import Stage
class Told(Register):
    def fail(self, block, reason):
        print(reason, flush=True)
attempted([Piece(Work("a.jpg", 1))], Stage.SAVE, Told(), 3, lambda pieces: 1 / 0)
"""


def test_an_error_that_nobody_foresaw_ends_the_process_and_is_told() -> None:
    ended = subprocess.run([sys.executable, "-c", UNFORESEEN], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (1, "ZeroDivisionError: division by zero\n")


def test_a_process_that_hangs_at_a_picture_ends() -> None:
    program = (
        "import time; from maskdrop.cluster.attempts import ended_after\nwith ended_after({}): time.sleep({})"
    )
    for longest, takes, code in ((0.2, 60, -signal.SIGALRM), (60, 0.2, 0)):
        assert subprocess.run([sys.executable, "-c", program.format(longest, takes)]).returncode == code


def test_nothing_new_sets_out_once_it_is_stopped() -> None:
    register = Register()
    pieces = [Piece(Work(f"{n}.jpg", 1)) for n in range(4)]
    for _ in range(2):  # the second time because the node was lost that had the first one's pixels
        attempted(pieces, Stage.PREPROCESS, register, 3, list)
    attempted(pieces[:3], Stage.PREPROCESS, register, 3, list)
    assert register.stop() == 7
    never: Callable[[list[Piece]], list[Piece]] = lambda some: pytest.fail("it was begun")  # noqa: E731
    stopped = attempted(pieces[:2], Stage.PREPROCESS, register, 3, never)
    assert [piece.work.end.error for piece in stopped if piece.work.end] == [STOPPED] * 2
    assert attempted(pieces, Stage.SAVE, register, 3, list) == pieces


def test_cargo_arrives_as_it_was_packed() -> None:
    pixels = np.arange(4 * 4 * 3, dtype=np.uint8).reshape(4, 4, 3)
    views = np.arange(2 * 4 * 4, dtype=np.uint8).reshape(2, 4, 4)
    work = Work(os.fsdecode(b"\xff.jpg"), 5, fault=Fault(Stage.SAVE, "E", "m"), ms={"infer": 1.5})
    pieces = [
        Piece(work),
        Piece(Work("b", 1), pixels, views, b"content"),
        Piece(Work("c", 1), None, views[0]),
    ]
    whole = packed(pieces)
    tables = {3: whole, 2: whole.slice(1), 1: whole.slice(0, 1), 0: whole.slice(0, 0)}
    tables[4] = pa.concat_tables([whole.slice(2), whole])  # as Ray puts rows together and takes them apart
    rows = {3: pieces, 2: pieces[1:], 1: pieces[:1], 0: [], 4: [pieces[2], *pieces]}
    for count, table in tables.items():
        for before, after in zip(rows[count], unpacked(table), strict=True):
            assert (before.work, before.content) == (after.work, after.content)
            for name in ("pixels", "labels"):
                assert np.array_equal(getattr(before, name), getattr(after, name))
    assert [piece.work for piece in unpacked(packed([Piece(work)]))] == [work]


def same(one: Pixels | None, other: Pixels | None) -> bool:
    return one is other is None or (one is not None and other is not None and np.array_equal(one, other))


def test_pixels_that_lie_one_behind_the_other_are_not_copied() -> None:
    block = np.arange(4 * 5 * 5 * 3, dtype=np.uint8).reshape(4, 5, 5, 3)
    works = [Work(f"{number}.jpg", 1) for number in range(5)]
    pieces = [Piece(works[0], block[0]), Piece(works[1]), *map(Piece, works[2:], block[1:])]

    def begins(pieces: list[Piece]) -> tuple[pa.Table, int]:
        """Their table, and where its pixels are."""
        table = packed(pieces)
        address: int = table["pixels"].chunk(0).buffers()[2].address
        return table, address

    table, address = begins(pieces)
    assert address == block.ctypes.data
    assert stacked([block[1], block[2]]).ctypes.data == block[1].ctypes.data
    travelled = unpacked(table)  # as an actor hands them on
    assert begins(travelled)[1] == address
    del pieces  # the table alone holds the memory
    for before, after in zip([block[0], None, *block[1:]], unpacked(table), strict=True):
        assert same(before, after.pixels)
    for scattered in ([block[1], block[0]], [block[0], block[2]], [block[0, ::-1], block[1]]):
        table, address = begins([*map(Piece, works, scattered)])
        assert not block.ctypes.data <= address < block.ctypes.data + block.nbytes
        assert all(map(same, scattered, (piece.pixels for piece in unpacked(table))))
        assert np.array_equal(stacked(scattered), np.stack(scattered))


def test_a_sub_folder_that_cant_be_written_is_trouble_that_may_end_and_no_fault_of_pictures(
    tmp_path: Path,
) -> None:
    closed = tmp_path / "sub"
    closed.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "none", str(closed)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("mounting needs root")
    try:
        with pytest.raises(FolderTrouble, match="Read-only file system"):
            FolderStore(tmp_path, FOLDERS).publish("sub/a.jpg", "1", [Result(".jpg", b"x")], False)
    finally:
        subprocess.run(["umount", "--lazy", str(closed)], check=True)


def test_what_is_taken_for_a_reason_can_be_anything() -> None:
    assert not is_same(b"[" * 20_000, b"{}")


def test_a_quarantine_in_the_manifest_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(b"x")
    for place in ("out/manifest.parquet", "out/manifest.parquet/x"):
        source, out, lost = (str(tmp_path / part) for part in ("in", "out", place))
        with pytest.raises(ConfigurationError, match="lies in the manifest"):
            order_of(Words(source, out, lost, None, None, None, {}, False), {})


def test_parts_written_anew_again_and_again_stay_in_order() -> None:
    names = ["part-x-000001.parquet"]
    for _ in range(12):
        names.append(_renewed(names[-1]))
    assert sorted([*names, "part-x-000002.parquet"]) == [*names, "part-x-000002.parquet"]
