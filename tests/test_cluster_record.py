"""What a batch on a cluster notes of its pictures, and what the next run makes of that; without a cluster."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("pyarrow")

from drawing import encode
from maskdrop.batch.ledger import Outcome
from maskdrop.cluster.access import Access, Keys
from maskdrop.cluster.attempts import Register
from maskdrop.cluster.breaker import MOST_LEFT, Breaker, Place
from maskdrop.cluster.broken import put_broken
from maskdrop.cluster.cargo import End, Piece, Work, packed, unpacked
from maskdrop.cluster.decoding import decode_block
from maskdrop.cluster.finishing import finish_block
from maskdrop.cluster.job import Job
from maskdrop.cluster.manifest import Manifest
from maskdrop.cluster.object_store import ObjectStore
from maskdrop.cluster.record import Record
from maskdrop.cluster.stores import FolderStore, PlaceTrouble
from maskdrop.config import FolderSettings, Settings
from maskdrop.exit_codes import EX_CONFIG, EX_TEMPFAIL
from maskdrop.leave_alone import LeaveAlone
from maskdrop.ticket import MESSAGE_LIMIT, Facts, Fault, Stage
from running import maskdrop

ANYWHERE = {"inbox": "/nonexistent/in", "outbox": "/nonexistent/out"}
FOLDERS = FolderSettings.model_validate(ANYWHERE)


def noted(store: FolderStore, *works: Work, copies: bool = False) -> Record:
    """What a run that comes to these ends leaves."""
    record = Record(Manifest(store), Breaker({}), copies)
    record.read()
    for work in works:
        record.note(work)
    record.close(tidies=True)
    return record


def known(store: FolderStore, path: str, copies: bool = False) -> str:
    record = Record(Manifest(store), Breaker({}), copies)
    record.read()
    return record.known(path)


SAVED = Work("a.jpg", 3, sha256="1", end=End(Outcome.SAVED, ("a.jpg",)))
UNREADABLE = Work("a.jpg", 3, end=End(Outcome.LEFT, error="unreadable"))


def test_a_picture_that_could_not_be_looked_at_keeps_the_row_that_says_it_is_done(tmp_path: Path) -> None:
    store = FolderStore(tmp_path, FOLDERS)
    noted(store, SAVED)
    record = noted(store, UNREADABLE)
    assert record.ledger.counts == {Outcome.LEFT: 1}  # which the exit code tells
    assert known(store, "a.jpg") == "1"
    noted(store, replace(UNREADABLE, sha256="2"))  # it was read, and is another one now
    assert known(store, "a.jpg") == ""
    noted(store, SAVED)
    assert known(store, "a.jpg") == "1"


def test_what_is_broken_and_has_no_copy_is_not_done_where_copies_are_wanted(tmp_path: Path) -> None:
    store, end = FolderStore(tmp_path, FOLDERS), End(Outcome.BROKEN, error="UnidentifiedImageError")
    broken = Work("a.jpg", 3, sha256="1", end=end)
    noted(store, broken)
    assert [known(store, "a.jpg", copies) for copies in (False, True)] == ["1", ""]
    noted(store, replace(broken, end=replace(end, quarantine="a~2.jpg")), copies=True)
    assert [known(store, "a.jpg", copies) for copies in (False, True)] == ["1", "1"]
    record = noted(store, replace(broken, end=End(Outcome.DONE_BEFORE)), copies=True)
    (entry,) = record.ledger
    assert (entry.outcome, entry.error, entry.quarantine) == (Outcome.BROKEN, end.error, "a~2.jpg")
    noted(store, SAVED)
    assert known(store, "a.jpg", copies=True) == "1"


def decoded(store: FolderStore, work: Work, most: int) -> Work:
    """The picture, once it was read; broken ones have their end here, as they get it later."""
    settings = Settings.model_validate({"folders": ANYWHERE, "decode": {"max_bytes": most}})
    job = Job(settings, store, store, None, Register())
    (piece,) = unpacked(decode_block(packed([Piece(work)]), job))
    fault = piece.work.fault
    if fault is None:
        return piece.work
    return replace(piece.work, end=End(Outcome.BROKEN, error=fault.error, message=fault.message))


@pytest.mark.parametrize(("content", "listed"), [(b"", 0), (b"", -1), (b"more than eight", 15)])
def test_what_is_broken_unread_is_done_before_while_it_is_the_same(
    tmp_path: Path, content: bytes, listed: int
) -> None:
    """It has no SHA-256; its size and its error are what it is known by."""
    store, out = FolderStore(tmp_path / "in", FOLDERS), FolderStore(tmp_path / "out", FOLDERS)
    for place in (store, out):
        place.base.mkdir()
    (store.base / "a.jpg").write_bytes(content)
    first = decoded(store, Work("a.jpg", listed), 8)
    assert first.end is not None
    assert (first.end.outcome, first.sha256) == (Outcome.BROKEN, "")
    noted(out, first)

    again = decoded(store, Work("a.jpg", listed, known(out, "a.jpg")), 8)
    assert again.end == End(Outcome.DONE_BEFORE)
    record = noted(out, again)
    assert record.ledger.counts == {Outcome.BROKEN: 1}
    (entry,) = record.ledger
    assert (entry.error, entry.message) == (first.end.error, first.end.message)

    (store.base / "a.jpg").write_bytes(b"another that is too large")
    changed = decoded(store, Work("a.jpg", 25, known(out, "a.jpg")), 8)
    assert changed.end is not None
    assert changed.end.error == "TooManyBytes"
    if listed > 0:  # and if more is let in, it is read
        (store.base / "a.jpg").write_bytes(content)
        assert decoded(store, Work("a.jpg", listed, known(out, "a.jpg")), 100).sha256


FOUND = Fault(Stage.PREPROCESS, "UnidentifiedImageError", "cannot identify it")


@pytest.mark.parametrize("fault", [FOUND, None])
@pytest.mark.parametrize("copies", [True, False])
def test_where_the_last_stage_dies_again_and_again_it_is_broken_without_a_copy(
    tmp_path: Path, fault: Fault | None, copies: bool
) -> None:
    """Also a picture that was broken before: to copy it is what the process may die at."""
    store, lost = FolderStore(tmp_path, FOLDERS), FolderStore(tmp_path / "lost", FOLDERS)
    lost.base.mkdir()
    (tmp_path / "a.jpg").write_bytes(b"no picture")
    register = Register()
    for _ in range(3):  # a process died at the block, and two at the picture alone
        register.begin("save 1 a.jpg", 0)
        register.enter("save 1 a.jpg", 0)
    job = Job(
        Settings.model_validate({"folders": ANYWHERE}), store, store, lost if copies else None, register
    )
    (piece,) = unpacked(finish_block(packed([Piece(Work("a.jpg", 10, fault=fault))]), job, False))
    end = piece.work.end
    assert end is not None
    wanted = ("WorkerDied", "the process died each time") if fault is None else (FOUND.error, FOUND.message)
    assert (end.outcome, end.error, end.quarantine) == (Outcome.BROKEN, wanted[0], "")
    assert end.message.startswith(wanted[1])
    assert ("it has no copy" in end.message) == copies
    assert not list(lost.base.iterdir())


class Remote(FolderStore):
    """A folder that says that each look at it costs a request."""

    @property
    def is_remote(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("pictures", "size", "carried"),
    [
        (64, 359_256, 64),  # as many as a block has at most, of docs/scale.md's larger size
        (64, 2**20, 32),
        (16, 2**20, 16),
        (16, 2 * 2**20, 8),
        (1, 9 * 2**20, 0),
    ],
)
def test_originals_travel_with_their_block_as_far_as_there_is_room(
    tmp_path: Path, pictures: int, size: int, carried: int
) -> None:
    (tmp_path / "0").write_bytes(encode(Image.new("RGB", (64, 48)), "JPEG").ljust(size, b"\0"))
    for number in range(1, pictures):
        os.link(tmp_path / "0", tmp_path / str(number))
    store = Remote(tmp_path, FOLDERS)
    job = Job(Settings.model_validate({"folders": ANYWHERE}), store, store, None, Register())
    block = packed(Piece(Work(str(number), size)) for number in range(pictures))
    contents = [piece.content for piece in unpacked(decode_block(block, job))]
    assert [content is not None for content in contents] == [number < carried for number in range(pictures)]


def test_a_broken_picture_that_changed_is_left_and_not_copied(tmp_path: Path) -> None:
    """Between folders too; what was never read is known by its size."""
    store, lost = FolderStore(tmp_path, FOLDERS), FolderStore(tmp_path / "lost", FOLDERS)
    lost.base.mkdir()
    (tmp_path / "a.jpg").write_bytes(b"broken")
    fault = Fault(Stage.PREPROCESS, "EmptyFile", "")
    sha256 = hashlib.sha256(b"broken").hexdigest()
    for changed in (Work("a.jpg", 6, sha256="0" * 64, fault=fault), Work("a.jpg", 0, fault=fault)):
        with pytest.raises(LeaveAlone, match="changed before it could be quarantined"):
            put_broken(store, lost, changed, FOLDERS)
    assert not list(lost.base.iterdir())
    for same in (Work("a.jpg", 6, sha256=sha256, fault=fault), Work("a.jpg", -1, fault=fault)):
        assert put_broken(store, lost, same, FOLDERS) == "a.jpg"
    assert (lost.base / "a.jpg").read_bytes() == b"broken"


def test_a_picture_that_changed_since_it_was_decoded_is_left(tmp_path: Path) -> None:
    """Else its face would be cut out by another one's labels, and its result be told to be of that one."""
    source, out = FolderStore(tmp_path / "in", FOLDERS), FolderStore(tmp_path / "out", FOLDERS)
    for place in (source, out):
        place.base.mkdir()
    contents = [encode(Image.new("RGB", (64, 48), colour), "JPEG") for colour in ("red", "blue")]
    (source.base / "a.jpg").write_bytes(contents[1])
    job = Job(Settings.model_validate({"folders": ANYWHERE}), source, out, None, Register())
    ends = []
    for content in contents:
        sha256 = hashlib.sha256(content).hexdigest()
        work = Work("a.jpg", len(content), sha256=sha256, facts=Facts(sha256, 64, 48))
        labels = np.zeros((job.settings.model.input_size,) * 2, np.uint8)
        (piece,) = unpacked(finish_block(packed([Piece(work, labels=labels)]), job, False))
        ends.append(piece.work.end)
        assert (out.base / "a.jpg").exists() == (content == contents[1])
    assert ends[0] == End(Outcome.LEFT, error="changed", message="changed while it was processed")
    assert ends[1] is not None
    assert ends[1].results == ("a.jpg",)


def test_a_broken_picture_whose_name_the_quarantine_cannot_take_is_a_row_without_a_copy(
    tmp_path: Path,
) -> None:
    store, lost = FolderStore(tmp_path, FOLDERS), FolderStore(tmp_path / "lost", FOLDERS)
    lost.base.mkdir()
    (lost.base / "x").write_bytes(b"a file")
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "a.jpg").write_bytes(b"broken")
    job = Job(Settings.model_validate({"folders": ANYWHERE}), store, store, lost, Register())
    long = replace(FOUND, message=1000 * "x")
    for fault in (FOUND, long):
        (piece,) = unpacked(finish_block(packed([Piece(Work("x/a.jpg", 6, fault=fault))]), job, False))
        end = piece.work.end
        assert end is not None
        assert (end.outcome, end.error, end.quarantine) == (Outcome.BROKEN, FOUND.error, "")
        assert end.message.startswith(fault.message[:100])
        assert end.message.endswith("can't take it under its name: Not a directory")
        assert "; it has no copy, since the quarantine /" in end.message
        assert len(end.message) <= MESSAGE_LIMIT
    assert [path.name for path in lost.base.iterdir()] == ["x"]


@contextmanager
def answering(status: int) -> Iterator[str]:
    """A server that has all objects, or none for us."""

    class Answer(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "5")
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_keys_that_no_longer_read_what_a_list_names_end_the_batch() -> None:
    """Its objects have no place together that could be tried: one that could be read before is."""
    left = End(Outcome.LEFT, error="unreadable")

    def note_all(endpoint: str) -> None:
        store = ObjectStore("", Access(endpoint, "us-east-1", Keys("key", "secret")))
        breaker = Breaker({"IN": Place(store, writes=False)})
        breaker.note(End(Outcome.SAVED), "bucket/good.jpg")
        for number in range(MOST_LEFT):
            breaker.note(left, f"bucket/{number}.jpg")

    with answering(403) as endpoint, pytest.raises(PlaceTrouble, match=r"bucket/good.jpg: .*give keys"):
        note_all(endpoint)
    with answering(200) as endpoint:  # it may be those that were left
        note_all(endpoint)


@pytest.mark.parametrize(
    ("status", "code", "remedy"),
    [(503, EX_TEMPFAIL, "give the same command later"), (403, EX_CONFIG, "give keys that may")],
)
@pytest.mark.parametrize("word", ["IN", "OUT"])
def test_object_storage_that_can_t_now_is_no_fault_of_the_command(
    tmp_path: Path, status: int, code: int, remedy: str, word: str
) -> None:
    """At the first look already: Kubernetes gives up a job that can't run as configured."""
    (tmp_path / "c.toml").write_text("[workers]\nstage_timeout_s = 1\n")
    (tmp_path / "in").mkdir()
    places = {"IN": str(tmp_path / "in"), "OUT": str(tmp_path / "out"), word: "s3://pictures/some"}
    with answering(status) as endpoint:
        words = ["batch", places["IN"], places["OUT"], "--engine", "ray", "--endpoint", endpoint]
        environment = {**os.environ, "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
        done = maskdrop([*words, "--config", str(tmp_path / "c.toml")], env=environment)
    assert (done.returncode, done.stdout) == (code, "")
    named = {"IN": "IN", "OUT": "folders.outbox"}[word]
    assert f"{named} = 's3://pictures/some': " in done.stderr
    assert remedy in done.stderr
