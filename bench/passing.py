"""How much one supervisor can pass on when it is the limit: its workers answer at once, and do nothing.

    python bench/passing.py [--pictures 8000] [--workers 8] 2>/dev/null

The daemon's own supervisor and inbox, with real processes and pipes. The stages' work takes no time, so the
supervisor always has several reports to take in, as beside devices and cores that are quicker than it is. It
has a core of its own; all workers share another. Prints JSON; per_picture_ms is processor time.
"""

import argparse
import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

from maskdrop.ticket import (
    Facts,
    Infer,
    Inferred,
    Prepare,
    Prepared,
    Ready,
    Save,
    Saved,
    Stage,
    Started,
    Stop,
)

LARGEST_BATCH, BATCHES_HELD = 32, 3
"""As on a GPU."""

WAIT_S = 0.002
"""How long the inference worker waits for more pictures of a batch."""

LOOK_S = 0.01


def answer(workplace: Any, tasks: Any, reports: Any, stderr: Any, supervisor: int) -> None:
    """A worker of any stage: reports what is expected of it, and moves saved originals away."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    inbox, archive = workplace.folders.inbox, workplace.folders.archive
    is_inference = workplace.stage is Stage.INFER
    reports.send(Ready("cpu", "none", "none") if is_inference else Ready())
    while not isinstance(task := tasks.recv(), Stop):
        if isinstance(task, Prepare):
            reports.send(Prepared(task.ticket.number, Facts("0" * 64, 64, 64), 1.0))
        elif isinstance(task, Infer):
            numbers = [task.number]
            while len(numbers) < LARGEST_BATCH and tasks.poll(WAIT_S):
                numbers.append(tasks.recv().number)
            reports.send(Started(tuple(numbers)))
            reports.send(Inferred(tuple(numbers), 1.0))
        elif isinstance(task, Save):
            (inbox / task.ticket.path).rename(archive / Path(task.ticket.path).name)
            reports.send(Saved(task.ticket.number, (task.ticket.path,), 1.0))
    os._exit(0)


def measure(base: Path, count: int, workers: int) -> dict[str, float]:
    """Pass ``count`` pictures through."""
    # Here, because each worker imports this file.
    from maskdrop.lasting import lasting_imports

    with lasting_imports():
        from maskdrop.config import Settings
        from maskdrop.supervisor.errand import watching
        from maskdrop.supervisor.premises import take_premises
        from maskdrop.supervisor.supervisor import Supervisor
        from maskdrop.systemd import ServiceManager

    for folder in ("inbox", "outbox", "archive", "staged"):
        (base / folder).mkdir()
    for number in range(count):
        (base / "staged" / f"{number:06}.jpg").write_bytes(b"never read")
    threads = {"infer": 1, "inference_threads": 1, "max_batch": LARGEST_BATCH}
    hands = {"preprocess": workers, "save": workers, "slots": LARGEST_BATCH * BATCHES_HELD + 4 * workers}
    settings = Settings.model_validate(
        {
            "folders": {name: base / name for name in ("inbox", "outbox", "archive")},
            "watch": {"settle_ms": 0},
            "model": {"device": "cpu", "input_size": 64},
            "face": {"locate": "off"},
            "workers": {**threads, **hands},
            "log": {"file": base / "log", "format": "json"},
        }
    )
    supervisor = Supervisor(take_premises(settings), ServiceManager(), watching(lambda: settings))
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    found: dict[str, float] = {}

    def drop_and_wait() -> None:
        record, archive = supervisor._journal.record, base / "archive"
        while not supervisor._crew.was_complete:
            time.sleep(LOOK_S)
        began, computed = time.monotonic(), time.process_time()
        (base / "staged").rename(base / "inbox" / "batch")
        while record.saved < count:
            time.sleep(LOOK_S)
        seconds, computed = time.monotonic() - began, time.process_time() - computed
        assert len(list(archive.iterdir())) == count
        found.update(per_second=count / seconds, per_picture_ms=1000 * computed / count)
        os.kill(os.getpid(), signal.SIGTERM)

    watcher = threading.Thread(target=drop_and_wait)
    with patch("maskdrop.supervisor.child.work", answer):
        watcher.start()
        supervisor.run()
    watcher.join()
    supervisor.leave()
    return found


def main() -> None:
    from measured import scratch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pictures", type=int, default=8_000)
    parser.add_argument("--workers", type=int, default=8, help="of each of the stages preprocess and save")
    options = parser.parse_args()
    with scratch("passing") as base:
        print(json.dumps(measure(base, options.pictures, options.workers)))


if __name__ == "__main__":
    main()
