"""What an execution's end means to a batch on a cluster, what a signal does while IN is gone through, what is
written and told whatever comes."""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest
from typer.testing import CliRunner

pytest.importorskip("ray", reason="needs pip install 'maskdrop[ray]'")

import ray.exceptions

from cluster_here import Here
from maskdrop.batch.ledger import Outcome
from maskdrop.cluster.attempts import CannotLabel
from maskdrop.cluster.cargo import End, Piece, Work, packed
from maskdrop.cluster.engine import Cluster, ClusterTrouble, translated
from maskdrop.cluster.inputs import Input, Inputs
from maskdrop.cluster.manifest import Manifest
from maskdrop.cluster.own_folder import OwnFolder
from maskdrop.cluster.run import BatchTrouble, ClusterBatch, Order
from maskdrop.cluster.sharing import that_share_names
from maskdrop.cluster.stores import FolderStore
from maskdrop.commands.app import app
from maskdrop.commands.progress import progress
from maskdrop.config import Settings
from maskdrop.config_file import ConfigurationError
from maskdrop.inbox.lock import LOCK_NAME
from waiting import wait_for

LOST = {
    "unavailable": ray.exceptions.ActorUnavailableError("a call that was lost", None),
    "actor": ray.exceptions.ActorDiedError(),
    "object": ray.exceptions.ObjectLostError("ab" * 28, None, ""),
    "memory": ray.exceptions.OutOfMemoryError("too little"),
    "worker": ray.exceptions.WorkerCrashedError(),
}


def of_a_task(cause: Exception) -> Exception:
    """As Ray hands on what a task ended with."""
    error: Exception = ray.exceptions.RayTaskError("decode_block", "traceback", cause).as_instanceof_cause()
    return error


@pytest.mark.parametrize("kind", LOST)
def test_what_a_task_asked_for_in_vain_is_the_cluster_s_trouble(kind: str) -> None:
    assert type(translated(LOST[kind])) is ClusterTrouble
    assert type(translated(of_a_task(LOST[kind]))) is ClusterTrouble


def test_a_fault_of_the_stages_own_is_not() -> None:
    for cause in (ValueError("a fault"), of_a_task(ValueError("a fault"))):
        error = of_a_task(cause)
        assert translated(error) is error
    assert type(translated(of_a_task(CannotLabel("no GPU")))) is ConfigurationError


def test_where_there_is_no_terminal_a_line_tells_how_far_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    with progress(line_each=0.0) as show:
        show(1000, None, "1000 saved")
        show(2500, 3000, "2499 saved, 1 broken")
    with progress(line_each=3600.0) as show:
        show(1, 2, "1 saved")
    with progress() as show:
        show(1, 2, "1 saved")
    first, second = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"1,000 done, \d+\.\d/s: 1000 saved", first)
    assert re.fullmatch(r"2,500 of 3,000 done, \d+\.\d/s: 2499 saved, 1 broken", second)


def test_pictures_share_names_where_these_are_cut_too() -> None:
    long = 250 * "a"
    alone = [f"b/{long}.jpg", f"x/{long}1.jpg", "a.jpg", "c/a.png", f"{long}.jpg"]
    sharing = ["b/a.jpg", "b/a.png", f"x/y/{long}1.jpg", f"x/y/{long}2.jpg"]
    assert that_share_names(alone + sharing, [".jpg", ".labels.png"]) == set(sharing)
    assert that_share_names([f"{long}.jpg", f"{long}1.jpg"], [".jpg"]) == set()


def test_pictures_share_names_where_different_results_of_theirs_do() -> None:
    paths = ["a.jpg", "a.model.jpg", "a.labels.jpg", "b/a.model.jpg", "a.models.jpg"]
    assert that_share_names(paths, [".jpg", ".model.jpg"]) == {"a.jpg", "a.model.jpg"}
    assert that_share_names(paths, [".png", ".labels.png"]) == {"a.jpg", "a.labels.jpg"}
    assert that_share_names(paths, [".jpg", ".labels.png"]) == set()


HOLDING = """
import sys
from maskdrop.cluster.own_folder import OwnFolder
folder = OwnFolder()
(folder.path / "session").mkdir()
print(folder.path, flush=True)
sys.stdin.read()
folder.remove()
"""


@contextmanager
def holding() -> Iterator[tuple[Path, subprocess.Popen[str]]]:
    """A process with a folder of a cluster of its own, which it removes once nobody writes to it any more."""
    program = [sys.executable, "-c", HOLDING]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield Path(process.stdout.readline().strip()), process


def test_the_folder_of_a_batch_that_was_killed_goes_with_the_next_one() -> None:
    with holding() as (dead, killed), holding() as (held, _):
        killed.kill()
        killed.wait()
        assert (dead / "session").is_dir()
        with tempfile.TemporaryDirectory(prefix="maskdrop-ray-", dir="/tmp") as nobodys:
            folder = OwnFolder()
            assert not dead.exists()
            assert (held / "session").is_dir()
            assert Path(nobodys).is_dir()
            folder.remove()
            assert not folder.path.exists()
    assert not held.exists()


def test_a_cluster_that_cannot_be_used_leaves_no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def lost() -> None:
        raise ConnectionError("no register")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("ray.init", lambda **options: made.append(Path(options["_temp_dir"])))
    monkeypatch.setattr("maskdrop.cluster.engine._register", lost)
    with pytest.raises(ConnectionError, match="no register"):
        Cluster(None)
    assert len(made) == 1
    assert not made[0].exists()


@pytest.mark.parametrize("address", ["a..b:6379", f"localhost:{10**30}", "localhost:²", "localhost"])
def test_what_is_no_address_is_told(address: str) -> None:
    with pytest.raises(ConfigurationError, match="is no cluster's address; give HOST:PORT of the head node"):
        Cluster(address)


LISTING = """
import os, signal, sys
from itertools import count
from pathlib import Path
from maskdrop.cluster.inputs import Input, Inputs
from maskdrop.cluster.manifest import Manifest
from maskdrop.cluster.run import ClusterBatch, Order
from maskdrop.cluster.stores import FolderStore
from maskdrop.config import Settings
folder = Path(sys.argv[1])
settings = Settings.model_validate({"folders": {"inbox": "/nonexistent/in", "outbox": folder}})
store = FolderStore(folder, settings.folders)
def endless(inputs):
    for number in count():
        if number == 1000:
            os.kill(os.getpid(), signal.SIGTERM)
        yield Input(f"{number}.jpg", 1)
order = Order(settings, Inputs(store, None, endless), store, None, Manifest(store), None, True)
batch = ClusterBatch(order, lambda: None)
batch.run()
print(batch.end_signal, batch.total, batch.is_complete)
"""


def test_a_signal_ends_the_listing_too(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LISTING, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.stdout == "15 1000 False\n", done.stderr


class Odd(FolderStore):
    """A folder that fails as nobody foresaw."""

    def names(self, folder: str) -> list[str]:
        raise of_a_task(RuntimeError("something odd\nand its details"))


def batch_in(
    folder: Path, kind: type[FolderStore] = FolderStore, inputs: Sequence[Input] = ()
) -> ClusterBatch:
    """A batch, of nothing unless it is told, that writes rows soon."""
    settings = Settings.model_validate({"folders": {"inbox": "/nonexistent/in", "outbox": folder}})
    store = kind(folder, settings.folders)
    found = Inputs(store, None, lambda _: iter(inputs))
    manifest = Manifest(store, longest_s=0.1)
    return ClusterBatch(Order(settings, found, store, None, manifest, None, True), lambda: None)


def test_rows_that_wait_are_written_while_nothing_arrives(tmp_path: Path) -> None:
    batch, left = batch_in(tmp_path), {name: Work(name, 3) for name in ("a.jpg", "b.jpg")}
    receiving = Thread(target=batch._receive, args=(left, lambda: 0))
    receiving.start()
    batch._arrivals.put(packed([Piece(Work("a.jpg", 3, sha256="1", end=End(Outcome.SAVED, ("a.jpg",))))]))
    try:
        wait_for(lambda: list(tmp_path.glob("manifest.parquet/part-*")), "a part of the manifest")
    finally:
        batch._arrivals.put(None)
        receiving.join()
    assert list(left) == ["b.jpg"]


def test_what_nobody_foresaw_ends_the_batch_as_trouble_does(tmp_path: Path) -> None:
    with pytest.raises(BatchTrouble) as told:
        batch_in(tmp_path, Odd).run()
    assert str(told.value).startswith("RuntimeError: something odd; the same command goes on from")


def test_what_is_listed_twice_is_done_and_counted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As object storage lists ``a.jpg`` and ``a.jpg/``. It shares no name with itself."""
    monkeypatch.setattr("maskdrop.cluster.run.Cluster", Here)
    monkeypatch.setattr(Here, "given", [])
    batch = batch_in(tmp_path, inputs=[Input("a.jpg", 9), Input("b.jpg", 3), Input("a.jpg", 4)])
    batch.run()
    assert (batch.total, batch.done, batch.is_complete) == (2, 2, True)
    assert [(work.path, work.size, work.is_shared) for work in Here.given] == [
        ("a.jpg", 9, False),
        ("b.jpg", 3, False),
    ]


def test_a_lock_that_cannot_be_opened_is_told_as_the_local_engine_tells_it(tmp_path: Path) -> None:
    (tmp_path / LOCK_NAME).mkdir()
    with pytest.raises(ConfigurationError, match=r"^folders.outbox = .*: no lock file can be made there \("):
        batch_in(tmp_path).run()


def test_a_full_disk_where_a_folder_is_missing_may_have_room_later(
    tmp_path: Path, tiny_weights: Path, mounted: Callable[..., None]
) -> None:
    disk = tmp_path / "disk"
    for folder in (disk, tmp_path / "in"):
        folder.mkdir()
    mounted("-t", "tmpfs", "-o", "nr_inodes=1", "none", str(disk))
    words = ["batch", str(tmp_path / "in"), str(disk / "out"), "--engine", "ray"]
    done = CliRunner().invoke(app, [*words, "--weights", str(tiny_weights)])
    assert done.exit_code == 75, done.output
    assert done.output.startswith(f"maskdrop: folders.outbox = {disk / 'out'}: ")
    assert "No space left on device" in done.output


@pytest.mark.parametrize("report", ["report.json", "/proc/report.json"])
def test_trouble_has_its_summary_its_report_and_its_exit_code(
    tmp_path: Path, tiny_weights: Path, report: str
) -> None:
    """Also where the report can't be written."""
    (tmp_path / "in").mkdir()
    part = tmp_path / "out" / "manifest.parquet" / "1.parquet"
    part.parent.mkdir(parents=True)
    part.symlink_to(part)  # which can't be read
    places = [str(tmp_path / "in"), str(tmp_path / "out"), "--report", str(tmp_path / report)]
    words = ["batch", *places, "--engine", "ray", "--weights", str(tiny_weights)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 75, done.output
    summary, trouble, *more = done.output.splitlines()
    assert "0 saved, 0 done before" in summary
    assert trouble.startswith(f"maskdrop: FolderTrouble: {part}: Too many levels of symbolic links; ")
    if report == "report.json":
        assert json.loads((tmp_path / report).read_text())["saved"] == 0
        assert not more
    else:
        assert more == ["maskdrop: --report /proc/report.json: No such file or directory; exit code 75"]
