"""`maskdrop batch --engine ray`: the real command on real clusters, with nodes and actors that are killed."""

import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from broken_files import broken_files
from cluster_job import Job
from drawing import encode, face_bytes

pytest.importorskip("ray", reason="needs pip install 'maskdrop[ray]'")

from maskdrop.batch.ledger import Outcome
from maskdrop.cluster.cargo import End, Work
from maskdrop.cluster.manifest import Manifest
from maskdrop.cluster.order import Words, order_of
from maskdrop.cluster.stores import FolderStore
from maskdrop.config import FolderSettings, ModelSettings
from maskdrop.config_file import ConfigurationError
from maskdrop.crash_points import CRASH_AT, CrashPoint
from maskdrop.names import printable
from object_storage import object_storage
from ray_nodes import ray_nodes
from running import FULL
from terminal import MASKDROP, Terminal
from waiting import PATIENCE_S, wait_for
from weights_for_tests import EMBEDDED

parquet: Any = pytest.importorskip("pyarrow.parquet")

pytestmark = pytest.mark.timeout(600)  # a batch on a cluster begins slowly on a busy machine

ODD = os.fsdecode(b"sub/two\nlines-\xff.jpg")

EXACT = FULL.replace("[workers]", "[workers]\nmax_batch = 1") + (
    '[save]\noutputs = ["face", "labels"]\n[model]\nprecision = "fp32"\n'
)
"""Settings with which every picture is computed by itself, so that results are the same to the last bit."""

SMALL_STORE = 100 * 2**20
"""Bytes of an object store; Ray's least is 75 MiB."""


CLASSES = ModelSettings().classes


def with_one_actor(settings: str) -> str:
    """Settings with which a node of two processors has one actor, for each takes its time to start."""
    return settings.replace("inference_threads = 1", "inference_threads = 2")


ONE_ACTOR = with_one_actor(FULL)

LOCATING = with_one_actor(EXACT.replace('"off"', '"auto"').replace('"labels"]', '"labels", "model"]'))


@pytest.fixture
def job(tmp_path: Path, tiny_weights: Path) -> Iterator[Job]:
    job = Job(tmp_path, tiny_weights)
    job.source.mkdir()
    yield job
    assert not list(job.base.rglob(".maskdrop-*"))  # no temporary file, wherever it was killed


def test_two_nodes_give_what_this_machine_gives_and_then_only_what_is_new(
    job: Job, faces: list[Path]
) -> None:
    """300 real faces, by narrow random weights, bit for bit; broken ones are rows; none spills; a resume."""
    real = {f"{path.stem[:1]}/{path.name}": path.read_bytes() for path in faces[:300]}
    drawn = {f"drawn/{n % 3}/{n}.jpg": face_bytes(n) for n in range(40)}
    good = {**real, **drawn, ODD: face_bytes(7)}
    good["small/one.png"] = face_bytes(8, "PNG", 700, 500)
    broken = {f"broken/{name}": content for name, content in broken_files().items()}
    for name, content in {**good, **broken}.items():
        job.put(name, content)
    before = {path: path.stat().st_mtime_ns for path in job.source.rglob("*")}
    here, lost = job.base / "here", job.base / "lost"
    job.run_here(here, code=1, settings=EXACT)
    with ray_nodes(1, 1) as nodes:
        there = ["--address", nodes.address, "--quarantine", str(lost)]
        report = job.base / "report.json"
        told = job.run(*there, "--report", str(report), code=1, settings=EXACT)
        assert f"{len(good)} saved, 0 done before, {len(broken)} broken, 0 left" in told
        assert not nodes.spills()
        assert job.results() == job.results(here)
        assert len(job.results()) == 2 * len(good)
        assert job.outcomes() == dict.fromkeys(good, "saved") | dict.fromkeys(broken, "broken")
        check_rows(job.rows(), good, job.out, lost)
        assert json.loads(report.read_text())["saved"] == len(good)
        assert {path: path.stat().st_mtime_ns for path in job.source.rglob("*")} == before

        parts = sorted((job.out / "manifest.parquet").iterdir())
        job.put("small/one.png", face_bytes(9, "PNG", 300, 200))
        job.put("new.jpg", face_bytes(10))
        made = {path: path.stat().st_mtime_ns for path in job.out.rglob("*.jpg")}
        told = job.run("--address", nodes.address, code=1, settings=EXACT)
    assert f"2 saved, {len(good) - 1} done before, {len(broken)} broken, 0 left" in told
    assert set(job.outcomes()) == {*good, *broken, "new.jpg"}  # and no picture has two rows
    assert {path: path.stat().st_mtime_ns for path in made} == made
    now = set((job.out / "manifest.parquet").iterdir())
    (renewed,) = set(parts) - now  # the one with the row of what was changed, less that
    assert renewed.with_suffix(".r000001.parquet") in now
    (row,) = [row for row in job.rows() if row["input"] == "small/one.png"]
    assert row["sha256"] == hashlib.sha256(face_bytes(9, "PNG", 300, 200)).hexdigest()
    assert len(job.results()) == 2 * (len(good) + 2)  # the old one's results stay, beside its own
    if not real:
        pytest.skip("all of it held for 40 drawings; for photographs of faces set MASKDROP_FACES")


def job_results(row: dict[str, Any], out: Path) -> list[Path]:
    """The files that a row names, odd characters and all."""
    found = {printable(path.relative_to(out)): path for path in out.rglob("*.*") if path.is_file()}
    return [found[name] for name in row["result"]]


def check_rows(rows: list[dict[str, Any]], good: dict[str, bytes], out: Path, lost: Path) -> None:
    """What the manifest tells of each picture."""
    for row in rows:
        if row["outcome"] == "saved":
            content = good[os.fsdecode(bytes.fromhex(row["hex"])) if row["hex"] else row["input"]]
            assert (row["size"], row["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
            shown, labels = job_results(row, out)
            assert shown.suffix == ".jpg"
            assert row["classes"] == [CLASSES[number] for number in np.unique(np.asarray(Image.open(labels)))]
            assert row["milliseconds"] > 0
            assert {"preprocess", "infer", "save"} <= dict(row["stages"]).keys()
        else:
            assert row["error"]
            assert row["message"]
            reason = json.loads((lost / f"{row['quarantine']}.reason.json").read_text())
            assert reason["error"] == row["error"]
            assert (lost / row["quarantine"]).exists()


def made_in(out: Path) -> dict[Path, int]:
    """When each result there was written, in nanoseconds."""
    return {path: path.stat().st_mtime_ns for path in out.glob("*.jpg")}


def test_whatever_of_a_cluster_dies_ends_nothing_and_costs_only_its_own_blocks(job: Job) -> None:
    """Real processes are killed in mid-work: the register, and actors, which then can't label for a time;
    then an actor, then a node. Every picture has its result and exactly one row; what was saved of the same
    execution before an actor died is not saved again for that."""
    names = {f"{number}.jpg" for number in range(240)}
    contents = [face_bytes(number) for number in range(20)]
    for number, name in enumerate(sorted(names)):
        job.put(name, contents[number % len(contents)])
    job.weights = Path(shutil.copy(job.weights, job.base))
    hidden = job.weights.with_suffix(".hidden")
    with ray_nodes(1, 1) as nodes, (job.base / "told").open("w+") as told:
        process = job.begin("--address", nodes.address, stdout=told)

        def holds(condition: Callable[[], bool]) -> bool:
            assert process.poll() is None, f"it ended too early: {Path(told.name).read_text()}"
            return condition()

        def saved(least: int) -> bool:
            return holds(lambda: len(list(job.out.glob("*.jpg"))) >= least)

        # Of which some have been told: blocks are of sixteen pictures.
        wait_for(lambda: saved(64), "results")
        (register,) = nodes.workers("Register")
        register.kill()
        job.weights.rename(hidden)
        for actor in nodes.actors(second=False) + nodes.actors(second=True):
            actor.kill()
        wait_for(lambda: holds(lambda: "is in trouble" in Path(told.name).read_text()), "trouble", 200)
        hidden.rename(job.weights)
        older = made_in(job.out)
        some = len(older)
        wait_for(lambda: saved(some + 5), "results after a register's death")
        wait_for(lambda: holds(lambda: len(nodes.actors(second=False)) == 1), "its actor")
        there = dict(made_in(job.out).items() - older.items())
        nodes.actors(second=False)[0].kill()
        wait_for(lambda: saved(some + 25), "results after an actor's death")
        before = made_in(job.out)
        assert there.items() <= before.items()
        nodes.kill_second()
        assert process.wait(200) == 0, Path(told.name).read_text()
        assert not nodes.spills()
        said = Path(told.name).read_text()
    assert "model.weights" in said or "tiny.safetensors" in said
    assert "Traceback" not in said
    assert len(before) < len(names)
    assert job.outcomes() == dict.fromkeys(names, "saved")
    assert set(job.results()) == names
    again = [path for path, made in before.items() if path.stat().st_mtime_ns != made]
    since = len(before) - some  # what was done before, in another execution, had come back
    assert len(again) <= since / 2  # what had not come back from the node, a block or two


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is usable here")
def test_each_gpu_that_ray_counts_has_an_actor_of_its_own_and_room_for_a_second_look(job: Job) -> None:
    """On two nodes, one of which has twice the GPUs of the other one; that PyTorch can't use them is told."""
    for number in range(48):
        job.put(f"{number}.jpg", face_bytes(number, width=64, height=80))
    notes = job.base / "notes"
    notes.mkdir()
    program = Path(__file__).with_name("gpu_census.py")
    with ray_nodes(3, 3, gpus=(2, 1)) as nodes:
        words = [nodes.address, str(job.source), str(job.out), str(notes)]
        done = subprocess.run(
            [sys.executable, str(program), *words], capture_output=True, text=True, timeout=400, check=False
        )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    given = [(actor["node"], gpu) for actor in told["actors"] for gpu in actor["gpus"]]
    assert len(given) == len(set(given)) == 3
    assert sorted(Counter(node for node, _ in given).values()) == [1, 2]
    assert all(actor["seen"] == ",".join(actor["gpus"]) for actor in told["actors"])
    (end,) = told["ends"]
    assert "Ray counts a GPU on" in end


def test_a_picture_that_kills_its_process_is_a_row_and_nothing_of_ray_stays(job: Job) -> None:
    """Decoder, network and saver really die by SIGKILL: at a block, then at one of its pictures alone."""
    names = {f"{number}.jpg" for number in range(10)}
    for number, name in enumerate(sorted(names)):
        job.put(name, face_bytes(number))
    points = (CrashPoint.SLOT_FILLED, CrashPoint.LABELS_WRITTEN, CrashPoint.RESULT_RENAMED)
    markers = [(point, job.base / f"{point.value}-{turn}") for point in points for turn in range(2)]
    armed = os.pathsep.join(f"{point.value}@{marker}" for point, marker in markers)
    process = job.begin(
        settings=ONE_ACTOR.replace("[workers]", "[workers]\nmax_attempts = 2"),
        env={**os.environ, CRASH_AT: armed},
    )
    children: set[psutil.Process] = set()
    folders: set[str] = set()

    def is_over() -> bool:
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(process.pid).children(recursive=True):
                children.add(child)
                folders.update(re.findall(r"/tmp/maskdrop-ray-\w+", " ".join(child.cmdline())))
        return process.poll() is not None

    wait_for(is_over, "the batch's end", 2 * PATIENCE_S)
    assert process.returncode == 1, process.communicate()
    assert all(marker.exists() for _, marker in markers)
    broken = [row for row in job.rows() if row["outcome"] == "broken"]
    assert {row["error"] for row in broken} == {"WorkerDied"}
    assert 1 <= len(broken) <= 3
    assert set(job.outcomes()) == names
    assert Counter(job.outcomes().values())["saved"] == len(names) - len(broken)
    psutil.wait_procs(children, timeout=PATIENCE_S)
    assert not [c for c in children if c.is_running() and c.status() != psutil.STATUS_ZOMBIE]
    (folder,) = folders
    assert not Path(folder).exists()


def test_a_signal_drains_and_the_next_run_does_the_rest(job: Job) -> None:
    names = {f"{number}.jpg" for number in range(160)}
    contents = [face_bytes(number) for number in range(20)]
    for number, name in enumerate(sorted(names)):
        job.put(name, contents[number % len(contents)])
    elsewhere = job.base / "elsewhere"
    elsewhere.mkdir()
    # With a store this small, few blocks are on their way at a time, however long the network takes to start.
    store = {"RAY_DEFAULT_OBJECT_STORE_MAX_MEMORY_BYTES": str(SMALL_STORE)}
    environment = {**os.environ, **store, "RAY_TMPDIR": str(elsewhere)}
    nohup = partial(signal.signal, signal.SIGHUP, signal.SIG_IGN)
    process = job.begin(settings=ONE_ACTOR, env=environment, preexec_fn=nohup)
    wait_for(lambda: len(list(job.out.glob("*.jpg"))) >= 5 or process.poll() is not None, "5 results")
    process.send_signal(signal.SIGHUP)  # which is ignored, as under nohup(1)
    process.send_signal(signal.SIGTERM)
    told = process.communicate(timeout=PATIENCE_S)[0]
    assert process.returncode == 128 + signal.SIGTERM, told
    assert "the same command goes on from here" in told
    assert "Traceback" not in told
    assert not list(elsewhere.rglob("session_*"))  # Ray would start a cluster anew for who still asks it
    first = job.outcomes()
    assert set(job.results()) == set(first)  # what had set out is finished, and has its row
    assert 5 <= len(first) < len(names)
    report = job.base / "report.json"
    at_once = ONE_ACTOR + "[drain]\ndrain_timeout_s = 0\n"
    with ray_nodes(1, store=SMALL_STORE) as nodes:
        there = ["--address", nodes.address]
        process = job.begin(*there, "--report", str(report), settings=at_once)
        more = len(first) + 5
        wait_for(lambda: len(list(job.out.glob("*.jpg"))) >= more or process.poll() is not None, "5 more")
        process.send_signal(signal.SIGTERM)
        told = process.communicate(timeout=PATIENCE_S)[0]
        assert process.returncode == 128 + signal.SIGTERM, told
        written = json.loads(report.read_text())
        given_up = written["given_up"]
        assert given_up > 0
        assert f"gave up {given_up} that were in flight" in told
        assert given_up + written["saved"] + written["done_before"] <= len(names)
        second = job.outcomes()
        assert len(second) == len(first) + written["saved"]

        report.unlink()
        words = job.words((*there, "--report", str(report)), "ray", ONE_ACTOR, None, None)
        terminal = Terminal([*MASKDROP, *words], 200, 24)
        with contextlib.closing(terminal):
            process = terminal.process
            more = len(list(job.out.glob("*.jpg"))) + 5  # some that were given up are there
            wait_for(lambda: len(list(job.out.glob("*.jpg"))) >= more or process.poll() is not None, "5 more")
            actors = nodes.actors(second=False)
            for actor in actors:
                actor.suspend()  # what has set out is waited for

            def is_ended() -> bool:
                process.send_signal(signal.SIGTERM)  # the first ones are one request
                return process.poll() is not None

            wait_for(is_ended, "the end at another signal")
            for actor in actors:
                with contextlib.suppress(psutil.NoSuchProcess):
                    actor.resume()
            assert process.returncode == 128 + signal.SIGTERM, terminal.text
            terminal.wait("the same command goes on from here")
            assert "Traceback" not in terminal.text
            assert not terminal.screen.cursor.hidden
        written = json.loads(report.read_text())
        third = job.outcomes()
        assert len(third) == len(second) + written["saved"]
        told = job.run(*there, code=0, settings=ONE_ACTOR)
    assert f"{len(names) - len(third)} saved, {len(third)} done before" in told
    assert job.outcomes() == dict.fromkeys(names, "saved")


def test_from_and_to_object_storage_with_a_second_look(job: Job, faces: list[Path]) -> None:
    """A real S3 server and the embedded weights: results, manifest and broken ones; names wanted twice; a
    small face, and photographs where there are any; a resume; a glob; a list."""
    job.weights = EMBEDDED
    good = {f"day/{number}.jpg": face_bytes(number) for number in range(6)}
    good |= {"day/0.png": face_bytes(50, "PNG"), "taken.jpg": face_bytes(51), "large.jpg": big_picture()}
    good["small.png"] = small_face()
    good |= {f"real/{path.name}": path.read_bytes() for path in faces[:4]}
    for name, content in good.items():
        job.put(name, content)
    here = job.base / "here"
    job.run_here(here, code=0, settings=LOCATING)
    with object_storage() as bucket, ray_nodes(1) as nodes:
        for name, content in {**good, "broken.jpg": b"no picture", "empty.jpg": b""}.items():
            bucket.put(f"in/{name}", content)
        bucket.put("in/.hidden.jpg", b"not for us")
        bucket.put("out/taken.jpg", b"somebody else's")
        places: dict[str, Any] = {"source": "s3://pictures/in", "out": "s3://pictures/out"}
        options = {**places, "settings": LOCATING, "env": bucket.environment}
        there = ["--address", nodes.address]
        told = job.run(*there, "--quarantine", "s3://pictures/lost", code=1, **options)
        assert f"{len(good)} saved, 0 done before, 2 broken, 0 left of {len(good) + 2} files" in told
        results = bucket.below("out")
        parts = [name for name in results if name.startswith("manifest.parquet/")]
        rows = parquet.read_table("pictures/out/manifest.parquet", filesystem=bucket.files).to_pylist()
        assert sorted(row["input"] for row in rows) == sorted([*good, "broken.jpg", "empty.jpg"])
        (small,) = [row for row in rows if row["input"] == "small.png"]
        assert {"locate", "look"} <= dict(small["stages"]).keys()
        assert results.pop("taken.jpg") == b"somebody else's"
        named = {name for row in rows for name in row["result"]}
        assert named == set(results) - set(parts)
        assert sorted(results[name] for name in named) == sorted(job.results(here).values())
        lost = bucket.below("lost")
        assert {"broken.jpg": b"no picture", "empty.jpg": b""}.items() <= lost.items()
        assert json.loads(lost["broken.jpg.reason.json"])["error"] == "UnidentifiedImageError"

        bucket.put("in/day/1.jpg", face_bytes(60))
        found = order_of(
            Words("s3://pictures/in/d*/*", str(job.out), None, None, None, None, {}, False),
            bucket.environment,
        )
        assert len(list(found.inputs)) == 7
        told = job.run(*there, code=1, **{**options, "source": "s3://pictures/in/**/*"})
        assert f"1 saved, {len(good) - 1} done before, 2 broken, 0 left of {len(good) + 2} files" in told
        after = bucket.below("out")
        kept = {name: content for name, content in results.items() if name not in parts}
        assert kept.items() <= after.items()
        more = {name for name in after if not name.startswith("manifest.parquet/")} - kept.keys()
        assert len(more) == len(
            ["taken.jpg", "face", "labels", "model"]
        )  # how many parts there are is a matter of time

        names = job.base / "list.txt"
        names.write_text(
            "".join(f"s3://pictures/in/{name}\n" for name in ("day/2.jpg", "gone.jpg", "small.png"))
        )
        listed = job.base / "listed"
        options |= {"source": names, "out": listed, "settings": ONE_ACTOR}
        told = job.run(*there, code=75, **options)  # it may come back
        assert "2 saved, 0 done before, 0 broken, 1 left of 3 files" in told
        outcomes = {row["input"]: row["outcome"] for row in job.rows(listed)}
        assert outcomes == {
            "pictures/in/day/2.jpg": "saved",
            "pictures/in/gone.jpg": "left",
            "pictures/in/small.png": "saved",
        }

        s3_in, s3_out = "s3://pictures/in", "s3://pictures/out"
        for source, out, quarantine, wanted in (
            (s3_in, "s3://nowhere/out", None, "no such bucket"),
            ("s3://nowhere/in", s3_out, None, "no such bucket"),
            ("s3://pictures/im", s3_out, None, "no object lies below it; mend the prefix"),
            ("s3://pictures/in/large.jpg", s3_out, None, "no object lies below it"),
            (s3_in, "s3://pictures/in/out", None, "lies inside IN"),
            ("s3://pictures/i*", "s3://pictures/io/x", None, "lies inside IN"),
            (s3_in, "s3://", None, "names no bucket"),
            ("s3://pictures//in", s3_out, None, "with // in it"),
            (s3_in, "s3://pictures//out", None, "with // in it"),
            (s3_in, s3_out, f"{s3_out}/", "is the outbox too"),
            (s3_in, s3_out, f"{s3_out}/manifest.parquet/x", "lies in the manifest"),
            (str(job.source), str(job.out), str(job.out / "manifest.parquet"), "lies in the manifest"),
            (str(names), str(job.out), str(job.out), "is the outbox too"),
        ):
            with pytest.raises(ConfigurationError, match=wanted) as told_why:
                order_of(Words(source, out, quarantine, None, None, None, {}, False), bucket.environment)
            assert "\n" not in str(told_why.value)
        beside = order_of(
            Words("s3://pictures/i*/**", s3_out, None, None, None, None, {}, False), bucket.environment
        )
        assert {one.path for one in beside.inputs} == {
            f"in/{name}" for name in (*good, "broken.jpg", "empty.jpg")
        }


def small_face() -> bytes:
    """The known portrait at a fraction of its frame, as a PNG."""
    known = Image.open(EMBEDDED.parent / "known-face.jpg").convert("RGB").resize((200, 200))
    whole = Image.new("RGB", (900, 700), (118, 118, 118))
    whole.paste(known, (350, 250))
    return encode(whole, "PNG")


def big_picture() -> bytes:
    """Larger than what is one PUT, as a result too."""
    noise = np.random.default_rng(1).integers(0, 256, (1800, 1800, 3), dtype=np.uint8)
    return encode(Image.fromarray(noise), "JPEG", quality=95)


def check_refusal(told: str, wanted: str) -> None:
    assert told.count("\n") == 1, told
    assert wanted in told


def test_what_cannot_be_done_as_asked_is_told_in_one_line(job: Job) -> None:
    job.put("a.jpg", face_bytes(1))
    mixed = job.base / "list.txt"
    mixed.write_text("a.jpg\n/b.jpg\n")
    taken = job.base / "taken"
    taken.mkdir()
    other = Manifest(FolderStore(taken, FolderSettings(inbox=job.source, outbox=taken)), "/elsewhere")
    other.add(Work("a.jpg", 1, end=End(Outcome.SAVED)))
    other.write()
    (job.base / "shadow" / "ray").mkdir(parents=True)
    (job.base / "shadow" / "ray" / "__init__.py").write_text(
        "raise ImportError('not installed', name='ray')\n"
    )
    path = os.pathsep.join([str(job.base / "shadow"), os.environ.get("PYTHONPATH", "")])
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        dead = f"127.0.0.1:{nobody.getsockname()[1]}"
        cases: list[tuple[list[str], dict[str, Any], str]] = [
            (["--address", dead], {}, "nobody answers there"),
            (["--address", "ray://somewhere:10001"], {}, "is no cluster's address"),
            (["--address", dead], {"engine": "local"}, "goes with --engine ray"),
            ([], {"engine": "local", "source": "s3://pictures/in"}, "needs --engine ray"),
            ([], {"source": job.base / "nothing"}, "name a folder, a list file, a glob"),
            ([], {"source": mixed}, "write all of them one way"),
            ([], {"out": job.source / "out"}, "lies inside the inbox"),
            ([], {"out": taken}, "has rows of another IN, /elsewhere; give another OUT"),
            (["--weights", "/nowhere.safetensors"], {}, "name a weights file"),
        ]
        for arguments, options, wanted in cases:
            check_refusal(job.refused(*arguments, **options), wanted)
    without = {**os.environ, "PYTHONPATH": path}
    check_refusal(job.run(env=without, code=78), "pip install 'maskdrop[ray]'")
    assert sorted(path.name for path in job.source.iterdir()) == ["a.jpg"]
