"""Metrics for Prometheus: what a running daemon writes and serves, and what that costs it."""

import contextlib
import os
import signal
import socket
import urllib.request
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from broken_files import broken_files
from drawing import face_bytes
from maskdrop.config_file import ConfigurationError, load_settings
from maskdrop.folders import prepare_folders
from maskdrop.health.metrics import Metrics
from maskdrop.health.totals import BUCKETS_S, Histogram, Totals
from maskdrop.supervisor.busy import WINDOW_S, BusyTime
from maskdrop.supervisor.record import Durations
from maskdrop.ticket import Stage
from running import QUICK, Daemon, Rooms
from test_health import inbox_of
from test_top import full_health
from waiting import PATIENCE_S, wait_for

Start = Callable[..., Daemon]
Samples = dict[str, dict[frozenset[tuple[str, str]], float]]


def samples_of(text: str) -> Samples:
    """Values by name and labels, the inbox's label apart, which every one must have."""
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation
        for sample in family.samples:
            labels = dict(sample.labels)
            assert labels.pop("inbox")
            found.setdefault(sample.name, {})[frozenset(labels.items())] = sample.value
    return found


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[f"maskdrop_{name}"][frozenset(labels.items())]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def page(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE_S) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=")
        content: str = answer.read().decode()
        return content


def metrics(**keys: object) -> str:
    return QUICK + "[metrics]\n" + "".join(f"{key} = {value!r}\n" for key, value in keys.items())


def test_file_and_page_tell_what_happened(start: Start, rooms: Rooms) -> None:
    file, port = rooms.base / "m" / "maskdrop.prom", free_port()
    daemon = start(settings=metrics(file=str(file), port=port)).wait_ready()
    for index in range(8):
        rooms.drop(f"{index}.jpg", face_bytes(index))
    rooms.drop("broken.jpg", broken_files()["jpeg-half.jpg"])
    daemon.wait_count("saved", 8)
    daemon.wait_count("quarantined", 1)
    os.kill(daemon.workers("save")[0], signal.SIGKILL)
    wait_for(
        lambda: value(samples_of(file.read_text()), "worker_restarts_total", stage="save") == 1, "a restart"
    )
    told = samples_of(file.read_text())
    assert value(told, "pictures_accepted_total") == 9
    assert value(told, "pictures_saved_total") == 8
    assert value(told, "pictures_quarantined_total", stage="preprocess") == 1
    assert value(told, "pictures_quarantined_total", stage="save") == 0
    assert value(told, "worker_deaths_total", stage="save", ending="died") == 1
    assert value(told, "worker_deaths_total", stage="infer", ending="died") == 0
    assert value(told, "workers", stage="save") == 1
    assert value(told, "pictures_in_flight") == value(told, "pictures_backlog") == 0
    for stage in ("preprocess", "infer", "save"):
        assert value(told, "stage_duration_seconds_count", stage=stage) == 8
        assert value(told, "stage_duration_seconds_bucket", stage=stage, le="+Inf") == 8
        spent = value(told, "stage_duration_seconds_sum", stage=stage)
        assert 0 < spent < PATIENCE_S
        assert 0 < value(told, "stage_busy_seconds_total", stage=stage) < PATIENCE_S
    assert value(told, "stage_duration_seconds_count", stage="settle") == 9  # the broken one settled too
    assert value(told, "picture_duration_seconds_count") == 8
    whole = value(told, "picture_duration_seconds_sum")
    assert whole >= value(told, "stage_duration_seconds_sum", stage="save")
    updated = value(told, "last_update_timestamp_seconds")
    assert value(told, "start_time_seconds") < updated
    about = {key: daemon.health()[key] for key in ("version", "model", "device", "precision")}
    assert value(told, "build_info", **about) == 1
    assert {name: set(labels) for name, labels in samples_of(page(port)).items()} == {
        name: set(labels) for name, labels in told.items()
    }
    with socket.create_connection(("127.0.0.1", port)) as silent:  # one that never says what it wants
        silent.sendall(b"GET /metrics HTT")
        rooms.drop("more.jpg", face_bytes(9))
        daemon.wait_count("saved", 9)
        assert value(samples_of(page(port)), "pictures_saved_total") == 9
    assert daemon.stop() == 0
    assert "Traceback" not in daemon.log
    ended = samples_of(file.read_text())
    assert value(ended, "state", state="stopped") == 1
    assert sum(ended["maskdrop_state"].values()) == 1
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_busy_seconds_are_the_stages_own(start: Start, rooms: Rooms) -> None:
    """A worker that is stopped with a picture in hand is busy for as long as that lasts, and no other is;
    one that has pictures queued and has not begun is not."""
    file = rooms.base / "maskdrop.prom"
    daemon = start(settings=metrics(file=str(file))).wait_ready()
    (infer,), (save,) = daemon.workers("infer"), daemon.workers("save")
    os.kill(infer, signal.SIGSTOP)
    os.kill(save, signal.SIGSTOP)
    rooms.drop("a.jpg", face_bytes(1))

    def busy(stage: str) -> float:
        return value(samples_of(file.read_text()), "stage_busy_seconds_total", stage=stage)

    def is_with_infer(health: dict[str, Any]) -> bool:
        prepared = health["stages"]["preprocess"]
        return (
            health["in_flight"] == 1
            and prepared["busy"] > 0
            and not any(health["queues"][step] for step in ("preprocess", "infer", "save"))
        )

    first = daemon.wait_health(is_with_infer, "the picture with the inference worker")
    daemon.wait_health(lambda h: h["updated_at"] > first["updated_at"], "another health file")
    assert busy("infer") == busy("save") == 0
    os.kill(infer, signal.SIGCONT)
    wait_for(lambda: busy("save") > 1.0, "a second of work")
    daemon.wait_health(lambda h: h["stages"]["save"]["busy"] > 0.1, "the share of it")
    others, before = (busy("preprocess"), busy("infer")), busy("save")
    assert min(others) > 0
    wait_for(lambda: busy("save") > before + 0.5, "another half second")
    assert (busy("preprocess"), busy("infer")) == others
    os.kill(save, signal.SIGCONT)
    daemon.wait_count("saved", 1)
    assert daemon.stop() == 0


def other_threads_wakes(process: psutil.Process) -> dict[int, int]:
    """How often each thread but the first gave up its processor to wait for something."""
    wakes = {}
    for task in Path(f"/proc/{process.pid}/task").iterdir():
        if int(task.name) != process.pid:
            lines = (task / "status").read_text().splitlines()
            (line,) = (line for line in lines if line.startswith("voluntary_ctxt_switches:"))
            wakes[int(task.name)] = int(line.split()[1])
    return wakes


def test_the_page_is_on_loopback_alone_and_wakes_nobody(start: Start, rooms: Rooms) -> None:
    port = free_port()
    daemon = start(settings=metrics(file=str(rooms.base / "maskdrop.prom"), port=port)).wait_ready()
    supervisor, *others = daemon.processes()

    def listening(process: psutil.Process) -> list[tuple[str, int]]:
        return [(c.laddr.ip, c.laddr.port) for c in process.net_connections() if c.status == "LISTEN"]

    assert listening(supervisor) == [("127.0.0.1", port)]
    assert not [listening(other) for other in others if listening(other)]
    before, seen = other_threads_wakes(supervisor), set()

    def enough() -> bool:
        seen.add(daemon.health().get("updated_at"))
        return len(seen) >= 10

    wait_for(enough, "ten health files, two seconds")
    after = other_threads_wakes(supervisor)
    assert len(before) >= 2
    assert {thread: after[thread] - count for thread, count in before.items()} == dict.fromkeys(before, 0)


def test_a_port_in_use_is_one_line_before_anything_starts(start: Start, rooms: Rooms) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        daemon = start(settings=metrics(port=port))
        assert daemon.wait_end() == 78
    assert daemon.log == (
        f"maskdrop: metrics.port = {port}: 127.0.0.1:{port} can't be listened on (Address already in use); "
        "name a free one, or leave it out\n"
    )
    assert not rooms.health.exists()


@pytest.mark.parametrize(
    ("place", "problem"),
    [
        ("inbox/m.prom", "lies inside the inbox"),
        ("outbox", "is a folder"),
        ("health.json", "is the health file too"),
        ("a-file/m.prom", "can't be made"),
    ],
)
def test_a_metrics_file_in_a_wrong_place_is_refused(rooms: Rooms, place: str, problem: str) -> None:
    (rooms.base / "a-file").touch()
    folders = {"inbox": rooms.inbox, "outbox": rooms.outbox}
    settings = load_settings(None, {"folders": folders, "metrics": {"file": rooms.base / place}})
    with pytest.raises(ConfigurationError, match=rf"^metrics\.file = .*{problem}.*; "):
        prepare_folders(settings)


@pytest.mark.parametrize("other", ["health", "metrics"])
def test_a_log_file_that_is_another_file_of_the_daemon_is_refused(rooms: Rooms, other: str) -> None:
    """By a way through a link, too."""
    (rooms.base / "link").symlink_to(rooms.base)
    files = {"health": rooms.base / "health.json", "metrics": rooms.base / "m.prom"}
    settings = load_settings(
        None,
        {
            "folders": {"inbox": rooms.inbox, "outbox": rooms.outbox},
            **{name: {"file": file} for name, file in files.items()},
            "log": {"file": rooms.base / "link" / files[other].name},
        },
    )
    with pytest.raises(ConfigurationError, match=rf"^log\.file = .*is the {other} file too; "):
        prepare_folders(settings)


def test_whoever_collects_metrics_may_read_them_whatever_the_umask(start: Start, rooms: Rooms) -> None:
    """The service's keeps results from others."""
    file = rooms.base / "m" / "maskdrop.prom"
    daemon = start(settings=metrics(file=str(file)), umask=0o077).wait_ready()
    wait_for(file.exists, "metrics")
    assert file.stat().st_mode & 0o777 == 0o644
    assert rooms.health.stat().st_mode & 0o777 == 0o600
    assert daemon.stop() == 0


def test_a_metrics_file_that_cannot_be_written_stops_no_work(start: Start, rooms: Rooms) -> None:
    file = rooms.base / "m" / "maskdrop.prom"
    daemon = start(settings=metrics(file=str(file))).wait_ready()

    def is_a_folder() -> bool:
        """The daemon may write it anew between the two."""
        with contextlib.suppress(OSError):
            file.unlink()
            file.mkdir()
        return file.is_dir()

    wait_for(is_a_folder, "a folder in its place")
    daemon.wait_log("the metrics file")
    rooms.drop("a.jpg", face_bytes(1))
    daemon.wait_count("saved", 1)
    file.rmdir()
    wait_for(file.is_file, "the metrics again")
    assert daemon.stop() == 0
    assert daemon.log.count("can't be written") == 1


@given(st.lists(st.floats(0, 1e6), max_size=300))
def test_each_duration_is_in_one_bucket_and_percentiles_lie_between_the_extremes(values: list[float]) -> None:
    durations = Durations()
    for milliseconds in values:
        durations.note(milliseconds)
    histogram = durations.histogram
    assert sum(histogram.counts) == len(values)
    below = 0
    for bound, count in zip(BUCKETS_S, histogram.counts[:-1], strict=True):
        below += count
        assert below == sum(each / 1000 <= bound for each in values)
    assert histogram.sum_s == pytest.approx(sum(values) / 1000)
    found = durations.percentiles()
    if not values:
        assert found == {"p50": None, "p99": None}
    else:
        p50, p99 = found["p50"], found["p99"]
        assert p50 is not None
        assert p99 is not None
        assert min(values) - 0.1 <= p50 <= p99 <= max(values) + 0.1


def test_percentiles_are_those_of_what_was_noted() -> None:
    durations = Durations()
    for milliseconds in range(1, 101):
        durations.note(float(milliseconds))
    found = durations.percentiles()
    assert found["p50"] == pytest.approx(50, abs=2)
    assert found["p99"] == pytest.approx(99, abs=1)


@given(
    st.lists(
        st.tuples(st.floats(0.001, 5), st.dictionaries(st.sampled_from(Stage), st.integers(0, 3))),
        max_size=50,
    )
)
def test_busy_time_is_the_sum_over_all_rounds(rounds: list[tuple[float, dict[Stage, int]]]) -> None:
    busy, now = BusyTime(), 100.0
    workers = dict.fromkeys(Stage, 3)
    busy.note(now, {})
    expected = dict.fromkeys(Stage, 0.0)
    busy.shares(now, workers)
    for length, at_work in rounds:
        busy.note(now, at_work)
        now += length
        for stage, count in at_work.items():
            expected[stage] += count * length
        assert all(0 <= share <= 1 for share in busy.shares(now, workers).values())
    assert busy.seconds == pytest.approx(expected)


def test_the_busy_share_is_that_of_the_last_seconds() -> None:
    busy, now = BusyTime(), 0.0
    workers = {Stage.INFER: 1, Stage.SAVE: 2, Stage.PREPROCESS: 0}
    assert set(busy.shares(now, workers).values()) == {0.0}
    told = []
    for second in range(100):
        busy.note(now, {Stage.INFER: 1 if second < 50 else 0, Stage.SAVE: 1})
        now += 1.0
        told.append(busy.shares(now, workers))
    infer = [shares[Stage.INFER] for shares in told]
    assert infer[:50] == [1.0] * 50
    assert infer[50:] == sorted(infer[50:], reverse=True)
    assert infer[50 + int(WINDOW_S) :] == [0.0] * (50 - int(WINDOW_S))
    assert {(shares[Stage.SAVE], shares[Stage.PREPROCESS]) for shares in told} == {(0.5, 0.0)}


def test_each_metric_has_its_own_value_and_the_page_its_time(rooms: Rooms) -> None:
    file, port, later = rooms.base / "m.prom", free_port(), "2031-02-03T04:05:06.789+00:00"
    made = Metrics(load_settings(None, {**inbox_of(rooms), "metrics": {"file": str(file), "port": port}}))
    made.publish(full_health(), Totals({}, {}, {}, {}, {}, {}))
    told = samples_of(file.read_text())
    names = ("accepted_total", "saved_total", "retried_total", "backlog", "in_flight")
    assert [value(told, f"pictures_{name}") for name in names] == [30, 20, 1, 12_345, 16]
    assert value(told, "slots_free") == 4
    for stage, waiting in {"preprocess": 1, "infer": 2, "save": 3}.items():
        assert value(told, "queue_length", step=stage) == waiting
        assert (value(told, "workers", stage=stage), value(told, "workers_ready", stage=stage)) == (40, 39)
    made.renew(later)
    for text in (file.read_text(), page(port)):
        seconds = value(samples_of(text), "last_update_timestamp_seconds")
        assert seconds == datetime.fromisoformat(later).timestamp()
    made.close()


def test_a_histograms_copy_stays_as_it_is() -> None:
    histogram = Histogram()
    histogram.note(0.2)
    before = histogram.copy()
    histogram.note(0.3)
    assert (sum(before.counts), before.sum_s) == (1, 0.2)
