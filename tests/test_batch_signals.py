"""`maskdrop batch` and signals: a first one drains, a second one ends at once, and both lose nothing."""

import json
import os
import signal
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from batch_job import Job, by_outcome, snapshot
from cradle import started_by
from drawing import face_bytes
from maskdrop.batch.ledger import Entry, Outcome
from maskdrop.batch.run import Batch
from maskdrop.batch.settings import settings_for
from nursery import Born
from waiting import PATIENCE_S, wait_for

HEALTH = ".maskdrop.health.json"


def fill(job: Job, count: int) -> set[str]:
    names = {f"{index:02}.jpg" for index in range(count)}
    for index, name in enumerate(sorted(names)):
        job.put(name, face_bytes(index))
    return names


def health(job: Job) -> dict[str, Any]:
    """What it says of itself; empty before it does, and after."""
    try:
        content: dict[str, Any] = json.loads((job.out / HEALTH).read_bytes())
    except (OSError, ValueError):
        return {}
    return content


def stuck(job: Job, *arguments: str, settings: str = "") -> "Born | subprocess.Popen[str]":
    """A batch whose inference worker is stopped while pictures are in flight."""
    process = job.begin(*arguments, settings=settings)
    (pid,) = wait_for(
        lambda: [w["pid"] for w in health(job).get("workers", []) if w["stage"] == "infer" and w["ready"]],
        "an inference worker that is ready",
    )
    os.kill(pid, signal.SIGSTOP)
    wait_for(lambda: health(job)["queues"]["free_slots"] == 0, "all slots in flight")
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_drains_and_the_next_run_does_the_rest(job: Job, number: signal.Signals) -> None:
    names = {f"{index}.jpg" for index in range(60)}
    for index, name in enumerate(sorted(names)):
        job.put(name, face_bytes(index))
    path = job.base / "report.json"
    process = job.begin("--report", str(path), settings="")
    wait_for(lambda: len(job.results()) >= 5 or process.poll() is not None, "five results")
    process.send_signal(number)
    _, told = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 128 + number, told
    assert "the same command goes on from here" in told
    report = json.loads(path.read_text())
    done = {os.fsdecode(name) for name in by_outcome(report)["saved"]}
    assert report["interrupted"]
    assert set(job.results()) == done  # what was in flight is finished and told
    assert 5 <= len(done) < len(names)
    rest = job.reported(code=0)
    assert {os.fsdecode(name) for name in by_outcome(rest)["saved"]} == names - done


@pytest.mark.parametrize(
    ("first", "second"),
    [(signal.SIGTERM, signal.SIGINT), (signal.SIGINT, signal.SIGHUP)],
)
def test_a_second_signal_ends_at_once_and_costs_nothing(
    job: Job, first: signal.Signals, second: signal.Signals
) -> None:
    names, path = fill(job, 40), job.base / "report.json"
    before = snapshot(job.source)
    process = stuck(job, "--report", str(path))
    processes = started_by(process.pid)
    process.send_signal(first)
    wait_for(lambda: health(job).get("state") == "draining", "state draining")
    assert process.poll() is None
    process.send_signal(second)
    _, told = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 128 + second, told
    assert psutil.wait_procs(processes, timeout=20)[1] == []
    report = json.loads(path.read_text())
    in_flight = report["given_up"]
    assert in_flight > 0
    assert f"; gave up {in_flight} that were in flight; interrupted: the same command goes on" in told
    assert report["interrupted"]
    assert snapshot(job.source) == before
    assert not (job.out / HEALTH).exists()
    told_of = {name for found in by_outcome(report).values() for name in found}
    assert len(told_of) == report["saved"] < len(names)
    rest = by_outcome(job.reported(code=0))
    assert {os.fsdecode(name) for name in rest["saved"] | rest.get("done before", set())} == names
    assert set(job.results()) == names


def test_a_drain_that_takes_too_long_is_cut_short(job: Job) -> None:
    names = fill(job, 30)
    process = stuck(job, settings="[drain]\ndrain_timeout_s = 0.5\n")
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 128 + signal.SIGTERM, told
    assert "that were in flight; interrupted" in told
    job.run(code=0)
    assert set(job.results()) == names


def test_ctrl_c_reaches_all_processes_and_drains_all_the_same(job: Job, tmp_path: Path) -> None:
    names, path = fill(job, 60), tmp_path / "report.json"
    process = job.begin("--report", str(path), "--verbose", start_new_session=True)
    wait_for(lambda: len(job.results()) >= 5 or process.poll() is not None, "five results")
    os.killpg(process.pid, signal.SIGINT)
    _, told = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 128 + signal.SIGINT, told
    assert "died" not in told
    assert "Traceback" not in told
    report = json.loads(path.read_text())
    assert report["given_up"] == 0
    assert 5 <= report["saved"] == len(job.results()) < len(names)


def test_a_hang_up_is_nothing_to_a_batch_that_nohup_began(job: Job) -> None:
    names = fill(job, 40)
    process = job.begin(prefix=["nohup"], stdin=subprocess.DEVNULL, start_new_session=True)
    wait_for(lambda: job.results() or process.poll() is not None, "a result")
    os.killpg(process.pid, signal.SIGHUP)
    _, told = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, told
    assert set(job.results()) == names


def test_only_what_was_in_flight_is_given_up(tmp_path: Path) -> None:
    settings = settings_for(None, tmp_path / "in", tmp_path / "out", None, {}, False)
    batch = Batch(settings, True, lambda: None)
    batch.listing = SimpleNamespace(given=7)  # type: ignore[assignment]
    for outcome in Outcome:
        batch.ledger.add(Entry(outcome.value, outcome))
    assert (batch.done, batch.given_up) == (4, 0)
    batch.end_signal = signal.SIGTERM
    assert batch.given_up == 3
