"""A real S3-compatible server (moto's), as a process of its own on this machine."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from waiting import wait_for

fs: Any = pytest.importorskip("pyarrow.fs")
pytest.importorskip("moto.server", reason="needs pip install 'moto[server]'")


class Bucket:
    """A bucket there, and the environment of who may use it."""

    def __init__(self, endpoint: str, name: str) -> None:
        self.endpoint, self.name = endpoint, name
        self.environment = {
            **os.environ,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        self.files = fs.S3FileSystem(
            access_key="key",
            secret_key="secret",
            endpoint_override=endpoint,
            region="us-east-1",
            allow_bucket_creation=True,
        )
        self.files.create_dir(name)

    def put(self, key: str, content: bytes) -> None:
        with self.files.open_output_stream(f"{self.name}/{key}") as stream:
            stream.write(content)

    def get(self, key: str) -> bytes:
        with self.files.open_input_file(f"{self.name}/{key}") as file:
            return bytes(file.read())

    def below(self, prefix: str) -> dict[str, bytes]:
        """Every object below a prefix."""
        selector = fs.FileSelector(f"{self.name}/{prefix}", recursive=True, allow_not_found=True)
        found = [info.path for info in self.files.get_file_info(selector) if info.type == fs.FileType.File]
        top = f"{self.name}/{prefix}/"
        return {path.removeprefix(top): self.get(path.removeprefix(f"{self.name}/")) for path in found}


@contextmanager
def object_storage() -> Iterator[Bucket]:
    """A server with one bucket, gone at the end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def answers() -> bool:
        assert server.poll() is None, "the S3 server ended"
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", port)) == 0

    try:
        wait_for(answers, "the S3 server")
        yield Bucket(f"http://127.0.0.1:{port}", "pictures")
    finally:
        server.kill()
        server.wait()
