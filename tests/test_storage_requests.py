"""The requests that a picture costs are those of docs/scale.md, counted by a real S3 server."""

import importlib
import re
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import sizing
from drawing import face_bytes
from waiting import wait_for

COUNT = 5


@pytest.fixture
def storage() -> Any:
    """The module that talks to object storage, where this maskdrop has it."""
    pytest.importorskip("moto", reason="pip install 'moto[server]'")
    try:
        return importlib.import_module("maskdrop.cluster.object_store")
    except ModuleNotFoundError as error:
        pytest.skip(f"no object storage without {error.name}")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Callable[[], Counter[str]]]]:
    """Address of moto's server, and what says which requests it was sent since the last question."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path / "moto.log"
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-p", str(port)], stderr=file, stdout=file
        )
    read = 0

    def asked() -> Counter[str]:
        nonlocal read
        text = log.read_text()
        read, since = len(text), text[read:]
        return Counter(map(kind_of, re.findall(r'"(\w+ /[^"]*)" \d', since)))

    def is_up() -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", port)) == 0

    try:
        wait_for(is_up, "moto's server")
        yield f"http://127.0.0.1:{port}", asked
    finally:
        process.terminate()
        process.wait()


def kind_of(request: str) -> str:
    """Its method; a GET that lists is a LIST, of as many names as it asks for at most."""
    listed = re.search(r"list-type=2&max-keys=(\d+)", request)
    return f"LIST {listed[1]}" if listed else request.split()[0]


def test_requests_a_picture(storage: Any, server: tuple[str, Callable[[], Counter[str]]]) -> None:
    fs = importlib.import_module("pyarrow.fs")
    reached = importlib.import_module("maskdrop.cluster.access")
    endpoint, asked = server
    told = sizing.read(sizing.FIGURES).assumed
    host = endpoint.removeprefix("http://")
    keys = {"access_key": "a", "secret_key": "b", "endpoint_override": host, "scheme": "http"}
    maker = fs.S3FileSystem(**keys, region="us-east-1", allow_bucket_creation=True)
    maker.create_dir("bucket")
    access = reached.Access(endpoint, "us-east-1", reached.Keys("a", "b"))
    pictures, results = (storage.ObjectStore(f"bucket/{name}", access) for name in ("in", "out"))
    contents = [face_bytes(number) for number in range(COUNT)]
    for number, content in enumerate(contents):
        pictures.put(f"{number}.jpg", content)
    asked()
    assert [pictures.read(f"{number}.jpg", 10**9) for number in range(COUNT)] == contents
    reads = asked()
    assert sum(reads[method] for method in ("GET", "HEAD")) == reads.total() == COUNT * told.input_reads
    assert len(list(pictures.entries(None))) == COUNT
    assert asked() == {f"LIST {told.names_a_list}": 1}
    for number, content in enumerate(contents):
        results.publish(f"{number}.jpg", f"{number:064}", [storage.Result(".jpg", content)], False)
    writes = asked()
    assert writes["GET"] + writes["HEAD"] == COUNT * told.output_reads
    assert writes["PUT"] == COUNT * told.writes
