"""Object storage by itself: objects are whole or not there, and hold what was put; odd names are told."""

import hashlib
import http.client
import io
import json
import logging
import os
import pickle
import signal
import socket
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Queue
from threading import Barrier, Event, Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import psutil
import pytest
from PIL import Image
from typer.testing import CliRunner

pytest.importorskip("pyarrow", reason="needs pip install 'maskdrop[ray]'")

import object_storage as storage
from cluster_here import Here
from maskdrop.batch.ledger import Outcome
from maskdrop.cluster import object_store as store
from maskdrop.cluster.access import Access, Keys
from maskdrop.cluster.attempts import Register
from maskdrop.cluster.breaker import MOST_LEFT, Breaker, Place
from maskdrop.cluster.broken import put_broken
from maskdrop.cluster.cargo import End, Piece, Work, packed, unpacked
from maskdrop.cluster.decoding import decode_block
from maskdrop.cluster.finishing import BESIDE, finish_block
from maskdrop.cluster.handover import handed_over
from maskdrop.cluster.inputs import find_inputs
from maskdrop.cluster.job import Job
from maskdrop.cluster.manifest import Manifest
from maskdrop.cluster.order import Words, order_of
from maskdrop.cluster.portions import distinct
from maskdrop.cluster.read_ahead import AHEAD, reading_ahead
from maskdrop.cluster.record import Record
from maskdrop.cluster.stores import MANIFEST, FolderStore, PlaceTrouble
from maskdrop.commands.app import app
from maskdrop.config import FolderSettings, Settings
from maskdrop.config_file import ConfigurationError
from maskdrop.decoding import BrokenPicture
from maskdrop.durable import FolderTrouble
from maskdrop.leave_alone import LeaveAlone, UnfitName
from maskdrop.parts import Part
from maskdrop.results.names import Result
from maskdrop.results.provenance import provenance
from maskdrop.ticket import Facts, Fault, Stage
from waiting import PATIENCE_S

FOLDERS = FolderSettings.model_validate({"inbox": "/nonexistent/in", "outbox": "/nonexistent/out"})

PATIENT = 1200.0
"""Seconds of a stage that waits for others to ask too, however busy this machine is."""

LATIN = "caf\udce9.jpg"
"""A name of a file whose bytes are no UTF-8, as Python has it."""


class Server(ThreadingHTTPServer):
    """One at which many may knock at the same instant."""

    request_queue_size = 128


@pytest.fixture(scope="module")
def bucket() -> Iterator[Any]:
    with storage.object_storage() as bucket:
        yield bucket


def objects(endpoint: str, folder: str = "out", longest: float = 120.0) -> Any:
    access = Access(endpoint, "us-east-1", Keys("key", "secret"), longest)
    return store.ObjectStore(f"pictures/{folder}", access)


@contextmanager
def refusing(
    endpoint: str,
    what: str | None,
    together: Barrier | None = None,
    listing: Callable[[], int] = lambda: HTTPStatus.OK,
    method: str = "PUT",
) -> Iterator[str]:
    """The same server by another address, at which PUTs with this in their path are refused; None: none are.

    Args:
        method: what is refused instead of PUTs.
        together: where PUTs wait for each other.
        listing: gives the status of the answer to who asks what is there, and not only for one.
    """
    host = endpoint.removeprefix("http://")

    class Between(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_any(self) -> None:
            body = b"".join(self.pieces())
            if self.command == "PUT" and together is not None:
                together.wait(PATIENCE_S)
            if self.command == method and what is not None and what in self.path:
                self.answer(403, b"", {})
                return
            asked = parse_qs(urlsplit(self.path).query)
            if "list-type" in asked and asked.get("max-keys") != ["1"]:
                status = listing()
                if status != HTTPStatus.OK:
                    self.answer(status, b"", {})
                    return
            there = http.client.HTTPConnection(host)
            dropped = ("transfer-encoding", "content-length", "expect", "connection")
            headers = {name: value for name, value in self.headers.items() if name.lower() not in dropped}
            there.request(self.command, self.path, body, headers)
            answer = there.getresponse()
            self.answer(answer.status, answer.read(), dict(answer.getheaders()))
            there.close()

        def pieces(self) -> Iterator[bytes]:
            """The body, in one piece or in chunks (RFC 9112, section 7.1)."""
            if "chunked" not in (self.headers.get("Transfer-Encoding") or ""):
                yield self.rfile.read(int(self.headers.get("Content-Length") or 0))
                return
            while size := int(self.rfile.readline().split(b";")[0], 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do_any  # noqa: N815

        def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            length = headers.pop("Content-Length", str(len(body)))
            for name, value in headers.items():
                if name not in ("Transfer-Encoding", "Connection", "Date", "Server"):
                    self.send_header(name, value)
            self.send_header("Content-Length", length if self.command == "HEAD" else str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    with Server(("127.0.0.1", 0), Between) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("name", ["a.gz", "a.bz2", "a.zst", "a.lz4", "a.jpg"])
def test_what_is_put_is_what_is_there(bucket: Any, name: str) -> None:
    content = b"not what its name says" * 50
    objects(bucket.endpoint).put(name, content)
    assert bucket.get(f"out/{name}") == content


@pytest.mark.parametrize("part", [1, 2])
def test_an_object_of_which_a_part_is_refused_is_not_there(bucket: Any, part: int) -> None:
    """Arrow makes an object of the parts that have come, or of none."""
    content = bytes(range(256)) * (12 * 2**12)
    with (
        refusing(bucket.endpoint, f"partNumber={part}") as endpoint,
        pytest.raises(FolderTrouble, match="pictures/out/large"),
    ):
        objects(endpoint).put(f"large-{part}.png", content)
    assert f"large-{part}.png" not in bucket.below("out")
    objects(bucket.endpoint).put(f"large-{part}.png", content)
    assert bucket.get(f"out/large-{part}.png") == content


@pytest.mark.parametrize("size", [1, 10 * 2**20 - 1])
def test_an_object_stays_where_the_one_put_that_would_replace_it_is_refused(bucket: Any, size: int) -> None:
    objects(bucket.endpoint).put("there.png", b"before")
    with refusing(bucket.endpoint, "there.png") as endpoint, pytest.raises(FolderTrouble):
        objects(endpoint).put("there.png", bytes(size))
    assert bucket.get("out/there.png") == b"before"


def test_an_object_says_of_which_kind_it_is(bucket: Any) -> None:
    """Else a browser that is given its address stores it, and shows nothing."""
    kinds = {
        "a.jpg": "image/jpeg",
        "a.png": "image/png",
        "a.json": "application/json",
        "a.webp": "image/webp",
    }
    place = objects(bucket.endpoint, "kinds")
    for name in kinds:
        place.put(name, b"content")
    told = {}
    for name in kinds:
        with bucket.files.open_input_stream(f"pictures/kinds/{name}") as stream:
            told[name] = stream.metadata()["Content-Type"].decode()
    assert told == kinds


def test_a_place_is_tried_and_left_as_it_was_also_by_keys_that_may_not_remove(
    bucket: Any, tmp_path: Path
) -> None:
    bucket.put("tried/a.jpg", b"x")
    assert objects(bucket.endpoint, "tried").check(writes=True) is None
    assert list(bucket.below("tried")) == ["a.jpg"]
    assert FolderStore(tmp_path, FOLDERS).check(writes=True) is None
    assert list(tmp_path.iterdir()) == []
    with refusing(bucket.endpoint, "tried", method="DELETE") as endpoint:
        assert objects(endpoint, "tried").check(writes=True) is None


def test_an_endpoint_without_a_scheme_is_spoken_to_in_secret() -> None:
    """The keys of whoever writes no more than a host and a port go to nobody who listens in between."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(PATIENCE_S)
        place = objects(f"127.0.0.1:{server.getsockname()[1]}", longest=1.0)
        asking = Thread(target=lambda: place.check(writes=False), daemon=True)
        asking.start()
        there, _ = server.accept()
        with there:
            there.settimeout(PATIENCE_S)
            assert there.recv(1) == b"\x16", "a TLS handshake (RFC 8446, section 5.1)"
    asking.join(PATIENCE_S)
    assert not asking.is_alive()


def test_keys_that_are_given_for_a_while_go_with_their_token() -> None:
    asked: Queue[str | None] = Queue()

    class Answer(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            asked.put(self.headers["X-Amz-Security-Token"])
            self.send_response(HTTPStatus.FORBIDDEN)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with Server(("127.0.0.1", 0), Answer) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        for token in ("TOKEN", ""):
            endpoint = f"http://127.0.0.1:{server.server_port}"
            place = store.ObjectStore("pictures", Access(endpoint, "us-east-1", Keys("key", "secret", token)))
            assert place.check(writes=False) is not None
            assert asked.get(timeout=PATIENCE_S) == (token or None)
            while not asked.empty():
                asked.get()
        server.shutdown()


def test_aws_s_own_variables_are_heeded_the_narrower_ones_first() -> None:
    both = {"AWS_ENDPOINT_URL": "http://all", "AWS_ENDPOINT_URL_S3": "http://s3"}
    regions = {"AWS_REGION": "eu-north-1", "AWS_DEFAULT_REGION": "eu-west-1"}
    assert Access.of({**both, **regions}, "http://given", 1.0).endpoint == "http://given"
    assert Access.of(both, None, 1.0).endpoint == "http://s3"
    assert Access.of({"AWS_ENDPOINT_URL": "http://all"}, None, 1.0).endpoint == "http://all"
    assert Access.of(regions, None, 1.0).region == "eu-north-1"
    assert Access.of({"AWS_DEFAULT_REGION": "eu-west-1"}, None, 1.0).region == "eu-west-1"


def test_no_row_is_lost_where_a_part_of_the_manifest_cannot_be_written_anew(bucket: Any) -> None:
    first, second = (Manifest(objects(bucket.endpoint)) for _ in range(2))
    for name in ("a.jpg", "b.jpg"):
        first.add(ended(name, "1"))
    first.write()
    second.add(ended("a.jpg", "2"))
    second.write()
    with refusing(bucket.endpoint, "manifest.parquet") as endpoint, pytest.raises(FolderTrouble):
        Manifest(objects(endpoint)).read()
    rows = Manifest(objects(bucket.endpoint)).read()
    assert {path: row.sha256 for path, row in rows.items()} == {"a.jpg": "2", "b.jpg": "1"}


def test_replaced_rows_stay_and_do_not_count_where_nothing_may_be_removed(
    bucket: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Keys may be without that permission; neither do parts become more with each look at them."""
    place = objects(bucket.endpoint, "kept")
    for names, sha256 in (("ab", "1"), ("c", "2"), ("ac", "3")):
        manifest = Manifest(place)
        for name in names:
            manifest.add(ended(f"{name}.jpg", sha256))
        manifest.write()
    caplog.set_level(logging.WARNING)
    with refusing(bucket.endpoint, MANIFEST, method="DELETE") as endpoint:
        Manifest(objects(endpoint, "kept")).read()
        parts = place.names(MANIFEST)
        record = Record(Manifest(objects(endpoint, "kept")), Breaker({}))
        record.read()
        assert place.names(MANIFEST) == parts
        record.note(ended("b.jpg", "4"))
        record.close(tidies=True)
        assert len(place.names(MANIFEST)) == len(parts) + 1
    told = [entry.getMessage() for entry in caplog.records]
    assert len(told) == len(["the first run", "the second"])
    assert all("stay in the manifest, and don't count: s3://pictures/kept/" in line for line in told)
    rows = Manifest(place).read()
    assert {path: row.sha256 for path, row in rows.items()} == {"a.jpg": "3", "b.jpg": "4", "c.jpg": "3"}
    assert len(place.names(MANIFEST)) == 2


def ended(path: str, sha256: str) -> Work:
    return Work(path, 3, sha256=sha256, end=End(Outcome.SAVED, ("r.jpg",), ("hair",)))


DECODING = """
import sys
from pathlib import Path
from maskdrop.cluster.attempts import Register
from maskdrop.cluster.breaker import MOST_LEFT, Breaker, Place, PlaceTrouble
from maskdrop.cluster.cargo import Piece, Work, packed, unpacked
from maskdrop.cluster.decoding import decode_block
from maskdrop.cluster.job import Job
from maskdrop.cluster.access import Access
from maskdrop.cluster.object_store import ObjectStore
from maskdrop.config import Settings
settings = Settings.model_validate(
    {"folders": {"inbox": "/nonexistent/in", "outbox": "/nonexistent/out"}, "workers": {"stage_timeout_s": 6}}
)
access = Access.of({"AWS_ACCESS_KEY_ID": "key"}, sys.argv[1], settings.workers.stage_timeout_s)
store = ObjectStore("pictures", access)
table = decode_block(packed([Piece(Work("a.jpg", 9))]), Job(settings, store, store, None, Register()))
print(unpacked(table)[0].work.end.error)
"""


def test_a_picture_is_left_where_object_storage_is_silent() -> None:
    """Before its stage's time is over: it would count as hung, and be broken though it is not."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        program = [sys.executable, "-c", DECODING, f"http://127.0.0.1:{silent.getsockname()[1]}"]
        done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "unreadable\n"), done.stderr


@pytest.mark.parametrize("longest", [10, 60, 120, 600, 86_400])
def test_all_tries_of_a_picture_s_requests_end_within_its_stage_s_time(longest: float) -> None:
    access = Access(longest=longest)
    pauses = sum(min(20.0, 2.0**number) for number in range(access.tries - 1))
    assert 2 * (access.tries * access.timeout_s + pauses) <= 0.8 * longest
    assert Access().tries == 5


def test_a_batch_ends_where_a_place_can_no_longer_be_used(bucket: Any, tmp_path: Path) -> None:
    """It is tried once so many pictures were left in a row; if it is well, they may be at fault."""
    gone, there = FolderStore(tmp_path / "gone", FOLDERS), objects(bucket.endpoint)
    bucket.put("out/any.jpg", b"picture")
    saved, left = End(Outcome.SAVED), End(Outcome.LEFT, error="FolderTrouble")
    broken = End(Outcome.BROKEN, error="EmptyFile")  # which needs no place to write to
    unreadable, vanished = End(Outcome.LEFT, error="unreadable"), End(Outcome.LEFT, error="gone")
    with refusing(bucket.endpoint, "out/") as endpoint:
        for source, target, wanted in (
            (there, objects(endpoint), "^OUT = s3://pictures/out: .* give keys that may write there"),
            (there, gone, "^OUT = /.*/gone: No such file or directory; mount it again"),
            (gone, there, "^IN = /.*/gone: No such file or directory; mount it again"),
        ):
            breaker = Breaker({"IN": Place(source, writes=False), "OUT": Place(target, writes=True)})
            for end in (
                [left] * (MOST_LEFT - 1)
                + [saved]
                + [vanished] * MOST_LEFT
                + [unreadable] * (MOST_LEFT - 1)
                + [broken]
            ):
                breaker.note(end)
            with pytest.raises(PlaceTrouble, match=wanted):
                breaker.note(left)
    breaker = Breaker({"IN": Place(there, writes=False), "OUT": Place(there, writes=True)})
    for _ in range(2 * MOST_LEFT):
        breaker.note(unreadable)


@contextmanager
def answering_together(contents: dict[str, bytes], count: int) -> Iterator[str]:
    """A server that answers once it was asked so many things at the same time."""
    together = Barrier(count)

    class Answer(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            together.wait(PATIENCE_S)
            content = contents[self.path.rpartition("/")[2]]
            self.send_response(200 if self.command == "HEAD" else 206)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Content-Range", f"bytes 0-{len(content) - 1}/{len(content)}")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None: ...

    with Server(("127.0.0.1", 0), Answer) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def finished(place: Any, count: int) -> list[tuple[str, End]]:
    """What became of a block of so many pictures whose results go to a place."""
    pixels, hair = np.zeros((32, 32, 3), np.uint8), np.full((32, 32), Part.HAIR, np.uint8)
    facts = Facts("0" * 64, 32, 32, has_metadata=False)
    works = [Work(f"{number}.jpg", 100, sha256=f"{number:064}", facts=facts) for number in range(count)]
    folders = {"inbox": "/nonexistent/in", "outbox": "/nonexistent/out"}
    settings = Settings.model_validate({"folders": folders, "model": {"input_size": 32}})
    job = Job(settings, place, place, None, Register())
    done = finish_block(packed(Piece(work, pixels, hair, b"never read") for work in works), job, False)
    return [(piece.work.path, piece.work.end) for piece in unpacked(done) if piece.work.end is not None]


def test_results_are_written_while_others_are(bucket: Any) -> None:
    with refusing(bucket.endpoint, None, Barrier(BESIDE)) as endpoint:
        ends = finished(objects(endpoint, "beside", PATIENT), BESIDE)
    assert [path for path, _ in ends] == [f"{number}.jpg" for number in range(BESIDE)]
    assert {(end.outcome, end.classes) for _, end in ends} == {(Outcome.SAVED, ("hair",))}


def test_of_a_large_object_that_has_a_results_name_little_is_read(bucket: Any) -> None:
    """Of one that is a result as much as tells it: of a WebP that lies behind the pixels."""
    place, sha256 = objects(bucket.endpoint, "large"), "1" * 64
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 256, (800, 800, 3), np.uint8))
    results = []
    for form in ("PNG", "WEBP"):
        made = io.BytesIO()
        noise.save(made, form, lossless=True, exif=provenance(sha256))
        assert len(made.getvalue()) > 2**20
        results.append(Result(f".{form.lower()}", made.getvalue()))
    names = ("a.png", "a.webp")
    assert [place.publish("a.jpg", sha256, results, False) for _ in range(2)] == [names, names]
    bucket.put("large/a.jpg", bytes(16 * 2**20))
    tracemalloc.start()
    assert place.publish("a.jpg", sha256, [Result(".jpg", b"small")], False) == ("a~11111111.jpg",)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 4 * 2**20


def test_all_results_of_a_picture_have_one_stem(bucket: Any) -> None:
    place, first, second = objects(bucket.endpoint, "stems"), "1" * 64, "2" * 64

    def results(sha256: str, *tails: str) -> list[Result]:
        told = json.dumps({"maskdrop": "1", "sha256": sha256}).encode()
        return [Result(f".{tail}.json", told) for tail in tails]

    assert place.publish("x.jpg", first, results(first, "b"), False) == ("x.b.json",)
    marked = ("x~22222222.a.json", "x~22222222.b.json")
    assert place.publish("x.jpg", second, results(second, "a", "b"), False) == marked
    assert place.publish("x.jpg", first, results(first, "a", "b"), False) == ("x.a.json", "x.b.json")


def test_a_name_that_pictures_share_by_now_stays_with_whose_it_is(bucket: Any) -> None:
    """Its result would be there twice, and the first one never be replaced."""
    place = objects(bucket.endpoint, "shared")

    def published(path: str, sha256: str, is_shared: bool) -> str:
        made = io.BytesIO()
        Image.new("RGB", (8, 8)).save(made, "PNG", exif=provenance(sha256))
        (name,) = place.publish(path, sha256, [Result(".png", made.getvalue())], is_shared)
        return str(name)

    first, second = "1" * 64, "2" * 64
    assert published("x.jpg", first, False) == "x.png"
    for _ in range(2):
        assert published("x.jpg", first, True) == "x.png"
        assert published("x.webp", second, True) == "x~22222222.png"
        assert [published("y.jpg", one, True) for one in (first, second)] == [
            "y~11111111.png",
            "y~22222222.png",
        ]


def test_results_that_are_refused_are_left_and_hold_up_no_others(
    bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("maskdrop.cluster.finishing.PATIENCE_S", 1.0)
    count = 3 * BESIDE
    with refusing(bucket.endpoint, "/7.jpg") as endpoint:
        ends = finished(objects(endpoint, "refused"), count)
    assert [path for path, _ in ends] == [f"{number}.jpg" for number in range(count)]
    left = {path: end.error for path, end in ends if end.outcome is not Outcome.SAVED}
    assert left == {"7.jpg": "FolderTrouble"}


def test_originals_are_fetched_while_others_are_under_way() -> None:
    contents = {f"{number}.jpg": bytes([number]) * 100 for number in range(AHEAD)}
    with answering_together(contents, AHEAD) as endpoint:
        place = objects(endpoint, longest=PATIENT)
        with reading_ahead(place, [Work(name, 100) for name in contents], 1000) as ahead:
            assert [ahead.read(name) for name in contents] == list(contents.values())


def test_what_is_large_or_odd_is_read_in_its_turn(bucket: Any) -> None:
    contents = {f"{number}.jpg": bytes([number]) * 100 for number in range(3 * AHEAD)}
    contents["20.jpg"] = contents["21.jpg"] = bytes(5 * 2**20)
    for name, content in contents.items():
        bucket.put(f"out/{name}", content)
    bucket.put("out/empty.jpg", b"")
    place = objects(bucket.endpoint)
    sizes = {**dict.fromkeys(contents, -1), "21.jpg": 5 * 2**20, "gone.jpg": 10, "empty.jpg": 0}
    with reading_ahead(place, [Work(name, size) for name, size in sizes.items()], 2**30) as ahead:
        assert {name: ahead.read(name) for name in contents} == contents
        with pytest.raises(LeaveAlone, match="no such object any more"):
            ahead.read("gone.jpg")
        with pytest.raises(BrokenPicture, match="empty"):
            ahead.read("empty.jpg")


def test_what_has_too_many_bytes_is_refused_whether_it_is_read_ahead_or_not(bucket: Any) -> None:
    for name in ("small.jpg", "listed.jpg", "unlisted.jpg"):
        bucket.put(f"limit/{name}", bytes(9 if name == "small.jpg" else 10))
    works = [Work("small.jpg", 9), Work("listed.jpg", 10), Work("unlisted.jpg", -1)]
    with reading_ahead(objects(bucket.endpoint, "limit"), works, 9) as ahead:
        assert ahead.read("small.jpg") == bytes(9)
        for name in ("listed.jpg", "unlisted.jpg"):
            with pytest.raises(BrokenPicture, match=r"^10 bytes are more than decode\.max_bytes = 9$"):
                ahead.read(name)


def test_a_glob_lists_what_it_may_mean_and_one_without_a_match_is_told(bucket: Any) -> None:
    for key in ("2024-01/a.jpg", "2024-02/x/b.jpg", "2025-01/c.jpg", "2024-d.jpg"):
        bucket.put(f"glob/{key}", b"x")

    def found(glob: str) -> list[str]:
        inputs = find_inputs(f"s3://pictures/{glob}", objects(bucket.endpoint).access, FOLDERS)
        return sorted(one.path for one in inputs)

    assert found("glob") == [
        "2024-01/a.jpg",
        "2024-02/x/b.jpg",
        "2024-d.jpg",
        "2025-01/c.jpg",
    ]
    assert found("glob/2024-*") == ["2024-d.jpg"]
    assert found("glob/2024-*/*") == ["2024-01/a.jpg"]
    assert found("glob/2024-*/**") == ["2024-01/a.jpg", "2024-02/x/b.jpg"]
    assert found("glob/**/[bc].jpg") == ["2024-02/x/b.jpg", "2025-01/c.jpg"]
    assert [path for path, _ in objects(bucket.endpoint).entries(lambda name: False)] == []
    with pytest.raises(ConfigurationError, match="nothing matches it; mend the glob"):
        found("glob/2026-*/*")


def test_what_lies_below_a_prefix_counts_and_not_what_has_its_name(bucket: Any) -> None:
    access = objects(bucket.endpoint).access
    for key in ("both", "both/a.jpg"):
        bucket.put(key, b"x")
    bucket.files.create_dir("pictures/marked")  # the object "marked/", as consoles make a folder
    assert [one.path for one in find_inputs("s3://pictures/both", access, FOLDERS)] == ["a.jpg"]
    with pytest.raises(ConfigurationError, match="no object lies below it; mend the prefix"):
        find_inputs("s3://pictures/both/a.jpg", access, FOLDERS)
    marked = find_inputs("s3://pictures/marked", access, FOLDERS)
    with pytest.raises(ConfigurationError, match="no object lies below it; mend the prefix"):
        list(marked)


def test_what_is_hidden_or_unfinished_by_its_name_is_no_picture_in_object_storage_either(bucket: Any) -> None:
    for key in ("a.jpg", ".b.jpg", "c.jpg.part", ".d/e.jpg"):
        bucket.put(f"hidden/{key}", b"x")
    access = objects(bucket.endpoint).access
    for named in ("hidden", "hidden/**"):
        assert [one.path for one in find_inputs(f"s3://pictures/{named}", access, FOLDERS)] == ["a.jpg"]


def test_a_listing_of_several_answers_is_whole(bucket: Any) -> None:
    """S3 gives a thousand names at a time at most."""
    names = [f"{number:04}.jpg" for number in range(1001)]
    there = http.client.HTTPConnection(bucket.endpoint.removeprefix("http://"))
    for name in names:
        there.request("PUT", f"/pictures/many/{name}", b"x")
        assert there.getresponse().read() == b""
    there.close()
    many = objects(bucket.endpoint, "many")
    assert many.names("") == names
    assert sorted(many.entries(None)) == [(name, 1) for name in names]


def test_what_is_written_lies_neither_in_what_is_read_nor_around_it(bucket: Any) -> None:
    """As with folders: below OUT a result could have the name of an input."""
    bucket.put("near/in/a.jpg", b"x")
    for source, out, quarantine, wanted in (
        ("near/in", "near/in/out", None, "outbox = 's3://pictures/near/in/out': lies inside IN"),
        ("near/in", "near/", None, "outbox = 's3://pictures/near/': has IN inside it; choose a prefix"),
        ("near/in/*", "near", None, "has IN inside it"),
        ("near/in", "near/out", "", "quarantine = 's3://pictures/': has IN inside it"),
    ):
        top = "s3://pictures/"
        lost = None if quarantine is None else top + quarantine
        words = Words(top + source, top + out, lost, None, None, None, {}, False)
        with pytest.raises(ConfigurationError, match=wanted):
            order_of(words, bucket.environment)


def test_a_listing_that_is_silent_ends_with_the_batch(bucket: Any) -> None:
    """No signal would be seen by who waits for it."""
    bucket.put("slow/a.jpg", b"x")
    is_over = Event()

    def listing() -> int:
        inputs.stop()
        is_over.wait(PATIENCE_S)
        return HTTPStatus.OK

    with refusing(bucket.endpoint, None, listing=listing) as endpoint:
        inputs = find_inputs("s3://pictures/slow", objects(endpoint).access, FOLDERS)
        assert [one.path for one in inputs] == []
        is_over.set()


ENDING = """
from maskdrop.__main__ import main
from maskdrop.cluster import run


class Nobody:
    def __init__(self, address):
        self.statistics = []

    def close(self):
        pass


run.Cluster = Nobody
main()
"""


def test_a_signal_ends_the_command_while_it_lists_a_bucket(bucket: Any, tmp_path: Path) -> None:
    """Though object storage is silent, and would be waited for longer than this test takes."""
    bucket.put("slow/a.jpg", b"x")
    config = tmp_path / "c.toml"
    config.write_text("[workers]\nstage_timeout_s = 86400\n")
    is_asked, is_over = Event(), Event()

    def listing() -> int:
        is_asked.set()
        is_over.wait(PATIENCE_S)
        return HTTPStatus.OK

    with refusing(bucket.endpoint, None, listing=listing) as endpoint:
        words = [
            "batch",
            "s3://pictures/slow",
            str(tmp_path / "out"),
            "--engine",
            "ray",
            "--config",
            str(config),
        ]
        environment = {**bucket.environment, "AWS_ENDPOINT_URL": endpoint}
        program = [sys.executable, "-c", ENDING, *words]
        with subprocess.Popen(program, env=environment, stderr=subprocess.PIPE, text=True) as process:
            try:
                assert is_asked.wait(PATIENCE_S)
                process.send_signal(signal.SIGINT)
                assert process.wait(PATIENCE_S / 2) == 130
            finally:
                process.kill()
                is_over.set()


def test_the_first_process_of_a_container_ends_when_it_is_told_though_object_storage_is_silent(
    tmp_path: Path,
) -> None:
    """The kernel gives it no signal that it has no answer to."""
    inside = ["unshare", "--pid", "--fork", "--kill-child"]
    if subprocess.run([*inside, "true"], capture_output=True).returncode != 0:
        pytest.skip("no namespace for processes can be made here")
    config = tmp_path / "c.toml"
    config.write_text("[workers]\nstage_timeout_s = 86400\n")
    words = ["batch", "s3://pictures/in", str(tmp_path / "out"), "--engine", "ray", "--config", str(config)]
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(PATIENCE_S)
        words += ["--endpoint", f"http://127.0.0.1:{silent.getsockname()[1]}"]
        program = [*inside, sys.executable, "-m", "maskdrop", *words]
        with subprocess.Popen(program, env={**os.environ, "AWS_ACCESS_KEY_ID": "key"}) as process:
            try:
                asking, _ = silent.accept()
                (first,) = psutil.Process(process.pid).children()
                first.terminate()
                assert process.wait(PATIENCE_S / 2) == 128 + signal.SIGTERM
                asking.close()
            finally:
                process.kill()


@pytest.mark.parametrize(
    ("status", "error", "wanted"),
    [
        (HTTPStatus.FORBIDDEN, ConfigurationError, "ACCESS_DENIED .*; give keys that may list it"),
        (HTTPStatus.SERVICE_UNAVAILABLE, OSError, "^s3://pictures/slow can't be listed now: .*AWS Error"),
        (HTTPStatus.INTERNAL_SERVER_ERROR, OSError, "^s3://pictures/slow can't be listed now: .*AWS Error"),
    ],
)
def test_a_listing_that_is_refused_is_a_fault_and_one_that_fails_is_not(
    bucket: Any, status: HTTPStatus, error: type[Exception], wanted: str
) -> None:
    """Which would end the batch as one that can't run as configured."""
    bucket.put("slow/a.jpg", b"x")
    with refusing(bucket.endpoint, None, listing=lambda: status) as endpoint:
        inputs = find_inputs("s3://pictures/slow", objects(endpoint, longest=1.0).access, FOLDERS)
        with pytest.raises(error, match=wanted):
            list(inputs)


def test_a_listing_that_is_refused_in_the_middle_has_summary_and_report_of_what_is_done(
    bucket: Any, tmp_path: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("maskdrop.cluster.run.Cluster", Here)
    monkeypatch.setattr("maskdrop.cluster.run.PORTION", 500)
    monkeypatch.setattr("maskdrop.cluster.handover._PORTION", 500)
    there = http.client.HTTPConnection(bucket.endpoint.removeprefix("http://"))
    for key in (*(f"first/{number}.jpg" for number in range(500)), "second/a.jpg"):
        there.request("PUT", f"/pictures/middle/{key}", b"x")
        assert there.getresponse().read() == b""
    there.close()
    answers = iter([HTTPStatus.OK, HTTPStatus.OK])  # the first names, and what lies below the first of them
    report = tmp_path / "report.json"
    with refusing(bucket.endpoint, None, listing=lambda: next(answers, HTTPStatus.FORBIDDEN)) as endpoint:
        words = ["batch", "s3://pictures/middle/*/*.jpg", str(tmp_path / "out"), "--report", str(report)]
        words += ["--engine", "ray", "--endpoint", endpoint, "--weights", str(tiny_weights)]
        done = CliRunner().invoke(app, words, env=bucket.environment)
    assert done.exit_code == 78, done.output
    *_, summary, told = done.output.splitlines()
    assert summary.startswith("500 saved, 0 done before, 0 broken, 0 left of ")
    assert told.startswith("maskdrop: IN = 's3://pictures/middle/*/*.jpg': ")
    assert told.endswith("; give keys that may list it")
    assert json.loads(report.read_text())["saved"] == 500


def test_a_long_listing_arrives_whole_and_in_order() -> None:
    assert list(handed_over(range(12_345), lambda: False)) == list(range(12_345))
    assert list(handed_over([], lambda: False)) == []

    def failing() -> Iterator[int]:
        yield 1
        raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        list(handed_over(failing(), lambda: False))


def test_keys_are_nowhere_to_be_read() -> None:
    """Ray Data takes what it is given apart as dataclasses, and logs what that gives as text."""
    environment = {
        "AWS_ACCESS_KEY_ID": "KNOWN",
        "AWS_SECRET_ACCESS_KEY": "SECRET",
        "AWS_SESSION_TOKEN": "TOKEN",
    }
    place = store.ObjectStore("pictures", Access.of(environment, "http://there", 120.0))
    folders = {"inbox": "/nonexistent/in", "outbox": "/nonexistent/out"}
    job = Job(Settings.model_validate({"folders": folders}), place, place, place, Register())
    for shown in (str(job), repr(job), str(asdict(job)), repr(asdict(place.access)), str(place.access.keys)):
        assert "***" in shown
        assert not [key for key in environment.values() if key in shown]
    travelled = pickle.loads(pickle.dumps(place))
    assert travelled == place
    assert hash(travelled) == hash(place)
    assert travelled.access.keys.secret == "SECRET"


def test_a_name_that_begins_with_a_slash_is_not_another_one(bucket: Any) -> None:
    """Arrow can't read ``twice//a.jpg``: it is left, and never taken for ``twice/a.jpg``."""
    bucket.put("twice/a.jpg", b"this one")
    there = http.client.HTTPConnection(bucket.endpoint.removeprefix("http://"))  # as Arrow puts none there
    there.request("PUT", "/pictures/twice//b.jpg", b"not this one")
    assert there.getresponse().status == 200
    there.close()
    bucket.put("twice/b.jpg", b"this one")
    inputs = find_inputs("s3://pictures/twice", objects(bucket.endpoint).access, FOLDERS)
    assert sorted(one.path for one in inputs) == ["/b.jpg", "a.jpg", "b.jpg"]
    with pytest.raises(LeaveAlone, match="with // in it"):
        inputs.store.read("/b.jpg", 100)
    settings = Settings.model_validate(
        {"folders": {"inbox": "/nonexistent/in", "outbox": "/nonexistent/out"}}
    )
    job = Job(settings, inputs.store, inputs.store, None, Register())
    end = unpacked(decode_block(packed([Piece(Work("/b.jpg", 12))]), job))[0].work.end
    assert end is not None
    assert (end.outcome, end.error) == (Outcome.LEFT, "UnfitName")
    breaker = Breaker({"IN": Place(inputs.store, writes=False)})
    for _ in range(MOST_LEFT):  # however many there are, no place is at fault
        breaker.note(end, "/b.jpg")


def test_an_object_whose_key_ends_in_a_slash_is_told_and_never_taken_for_another_one(
    bucket: Any, tmp_path: Path
) -> None:
    """Arrow lists it without that, and finds nothing by that name."""
    there = http.client.HTTPConnection(bucket.endpoint.removeprefix("http://"))
    for key in ("junk/", "junk/a.jpg", "b.jpg", "b.jpg/"):
        there.request("PUT", f"/pictures/slashed/{key}", key.encode())
        assert there.getresponse().read() == b""
    there.close()
    inputs = find_inputs("s3://pictures/slashed", objects(bucket.endpoint).access, FOLDERS)
    found = distinct(inputs)
    assert sorted((one.path, one.size) for one in found) == [("b.jpg", 5), ("junk", 5), ("junk/a.jpg", 10)]
    assert inputs.store.read("b.jpg", 100) == b"b.jpg"
    settings = Settings.model_validate(
        {"folders": {"inbox": "/nonexistent/in", "outbox": "/nonexistent/out"}}
    )
    job = Job(settings, inputs.store, inputs.store, None, Register())
    left = unpacked(decode_block(packed([Piece(Work("junk", 5)), Piece(Work("gone", 5))]), job))
    assert [piece.work.end for piece in left] == [
        End(
            Outcome.LEFT,
            error="UnfitName",
            message="it is no key, but what others begin with; a key that ends in a slash can't be read; "
            "rename it",
        ),
        End(Outcome.LEFT, error="gone", message="no such object any more"),
    ]
    (tmp_path / "list.txt").write_text("s3://pictures/slashed/b.jpg/\n")
    inputs = find_inputs(str(tmp_path / "list.txt"), objects(bucket.endpoint).access, FOLDERS)
    with pytest.raises(UnfitName, match="a key that ends in a slash can't be read; rename it"):
        inputs.store.read(next(iter(inputs)).path, 100)


def put_aside(source: Any, target: Any, path: str, content: bytes) -> str:
    """The name of a broken picture's copy."""
    source.put(path, content)
    fault = Fault(Stage.PREPROCESS, "UnidentifiedImageError", "no picture")
    work = Work(path, len(content), sha256=hashlib.sha256(content).hexdigest(), fault=fault)
    return put_broken(source, target, work, FOLDERS)


@pytest.fixture(params=["object storage", "a folder"])
def aside(request: pytest.FixtureRequest, bucket: Any, tmp_path: Path) -> Any:
    """A quarantine of a batch from object storage."""
    if request.param == "a folder":
        return FolderStore(tmp_path, FOLDERS)
    return objects(bucket.endpoint, request.node.originalname)


def test_a_copy_of_a_broken_picture_replaces_only_itself(bucket: Any, aside: Any) -> None:
    first, second = (objects(bucket.endpoint, folder) for folder in ("in-1", "in-2"))
    aside.put("x/a.jpg", b"somebody else's")
    assert [put_aside(first, aside, "x/a.jpg", b"broken") for _ in range(2)] == ["x/a~2.jpg"] * 2
    assert put_aside(second, aside, "x/a.jpg", b"broken") == "x/a~3.jpg"
    assert put_aside(first, aside, "x/a.jpg", b"and changed") == "x/a~4.jpg"
    assert put_aside(first, aside, "x/a~2.jpg", b"its own") == "x/a~2~2.jpg"
    contents = [aside.get(f"x/a{mark}.jpg") for mark in ("", "~2", "~3", "~4", "~2~2")]
    assert contents == [b"somebody else's", b"broken", b"broken", b"and changed", b"its own"]
    assert len(aside.names("x")) == 5 + 4
    told = json.loads(aside.get("x/a~3.jpg.reason.json"))
    assert (told["in"], told["picture"], told["size"]) == ("s3://pictures/in-2", "x/a.jpg", 6)


def test_a_copy_never_has_the_name_of_a_reason(bucket: Any, aside: Any) -> None:
    """Of a picture that comes later, or at the same time."""
    source = objects(bucket.endpoint, "in-3")
    assert put_aside(source, aside, "a.jpg.reason.json", b"broken too") == "a.jpg.reason~2.json"
    aside.put("b.jpg.reason.json", b"{}")
    assert put_aside(source, aside, "a.jpg", b"broken") == "a.jpg"
    assert put_aside(source, aside, "b.jpg", b"broken") == "b~2.jpg"
    assert json.loads(aside.get("a.jpg.reason.json"))["error"] == "UnidentifiedImageError"
    assert aside.get("b.jpg.reason.json") == b"{}"


def test_a_copy_whose_name_cannot_be_had_is_refused_at_once(bucket: Any, tmp_path: Path) -> None:
    """In object storage a name may be another one's folder, and of any length below a kilobyte."""
    source, folder = objects(bucket.endpoint, "in-5"), FolderStore(tmp_path, FOLDERS)
    assert put_aside(source, folder, "a.jpg", b"broken") == "a.jpg"
    for path, why in (("a.jpg/b.jpg", "Not a directory"), (f"{256 * 'x'}/b.jpg", "File name too long")):
        with pytest.raises(UnfitName, match=f"can't take it under its name: {why}"):
            put_aside(source, folder, path, b"broken too")
    assert put_aside(source, folder, "c.jpg/b.jpg", b"broken") == "c.jpg/b.jpg"
    assert put_aside(source, folder, "c.jpg", b"broken too") == "c~2.jpg"
    with pytest.raises(UnfitName, match="takes no name that is not UTF-8"):
        put_aside(folder, objects(bucket.endpoint, "lost"), LATIN, b"broken")


def test_of_a_picture_that_is_too_large_to_be_copied_no_copy_is_named(
    bucket: Any, aside: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("maskdrop.cluster.broken.LARGEST_COPY", 5)
    source = objects(bucket.endpoint, "in-6")
    assert put_aside(source, aside, "film.mp4", b"larger") == ""
    assert aside.names("") == ["film.mp4.reason.json"]


def test_a_broken_picture_that_changed_is_left(bucket: Any, aside: Any) -> None:
    source = objects(bucket.endpoint, "in-4")
    source.put("a.jpg", b"whole by now")
    fault = Fault(Stage.PREPROCESS, "EmptyFile", "")
    for work in (Work("a.jpg", 6, sha256="0" * 64, fault=fault), Work("a.jpg", 0, fault=fault)):
        with pytest.raises(LeaveAlone, match="changed before it could be quarantined"):
            put_broken(source, aside, work, FOLDERS)
    assert aside.names("") == []


@pytest.mark.parametrize("place", ["s3://pictures:80/x", "s3://arn:aws:s3:us-east-1:1:accesspoint/ap/x"])
def test_a_bucket_with_a_colon_is_told(bucket: Any, tmp_path: Path, place: str) -> None:
    """Arrow takes it for another URL's scheme. In a list it is left, as is any name that there can't be."""
    bucket.put("colon/a.jpg", b"x")
    for source, out in ((place, "s3://pictures/out"), ("s3://pictures/colon", place)):
        words = Words(source, out, None, None, None, None, {}, False)
        wanted = f"= '{place}': no bucket has a colon in its name; write s3://BUCKET/…, where an access point"
        with pytest.raises(ConfigurationError, match=wanted):
            order_of(words, bucket.environment)
    (tmp_path / "list.txt").write_text(f"s3://pictures/colon/a.jpg\n{place}/a.jpg\n")
    inputs = find_inputs(str(tmp_path / "list.txt"), objects(bucket.endpoint).access, FOLDERS)
    first, second = inputs
    assert inputs.store.read(first.path, 10) == b"x"
    with pytest.raises(UnfitName, match="no bucket has a colon"):
        inputs.store.read(second.path, 10)


@pytest.mark.parametrize("endpoint", ["ftp://host", "HTTP://host", "https://"])
def test_an_endpoint_that_is_none_is_told(bucket: Any, tmp_path: Path, endpoint: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "list.txt").write_text("s3://pictures/a.jpg\n")
    for source, out in (
        ("s3://pictures/in", "out"),
        (str(tmp_path / "in"), "s3://pictures/out"),
        (str(tmp_path / "list.txt"), str(tmp_path / "out")),
    ):
        words = Words(source, out, None, None, endpoint, None, {}, False)
        with pytest.raises(
            ConfigurationError, match=f"= '{endpoint}': is no URL of an S3 server; write http"
        ):
            order_of(words, bucket.environment)


def test_what_arrow_takes_for_no_address_is_trouble_and_ends_nothing() -> None:
    place = objects("ftp://host", longest=6.0)
    with pytest.raises(LeaveAlone, match="Invalid S3 connection scheme"):
        place.read("a.jpg", 10)
    asked: list[Callable[[], object]] = [
        lambda: place.put("a.jpg", b"x"),
        lambda: place.has("a.jpg"),
        lambda: place.remove("a.jpg"),
        lambda: place.publish("a.jpg", "0" * 64, [Result(".jpg", b"x")], False),
    ]
    for ask in asked:
        with pytest.raises(FolderTrouble, match="Invalid S3 connection scheme"):
            ask()
    unfit = place.check(writes=True)
    assert unfit is not None
    assert "Invalid S3 connection scheme" in unfit.problem


def test_names_that_object_storage_does_not_take_are_told(bucket: Any, tmp_path: Path) -> None:
    place = objects(bucket.endpoint)
    for name in (LATIN, "a//b.jpg"):
        with pytest.raises(LeaveAlone, match="takes no name that is not UTF-8, or with // in it; rename it"):
            place.read(name, 1000)
        with pytest.raises(LeaveAlone, match="takes no name"):
            place.put(name, b"content")
    with pytest.raises(LeaveAlone, match="takes no name"):
        place.publish(LATIN, "0" * 64, [Result(".jpg", b"content")], False)
    with pytest.raises(LeaveAlone, match="takes no name"):
        put_aside(FolderStore(tmp_path, FOLDERS), place, LATIN, b"content")
    place.put("café\u2028.jpg", b"content")
    assert bucket.get("out/café\u2028.jpg") == b"content"
