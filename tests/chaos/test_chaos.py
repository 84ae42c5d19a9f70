"""Whatever is killed, and when: every picture is at one place, done once, its results whole."""

import os
import signal
import time
from pathlib import Path

import pytest

from chaos.runner import TAILS, Run
from running import Rooms


def unleash(rooms: Rooms, weights: Path, faces: list[Path], pictures: int, kills: int) -> None:
    seed = int(os.environ.get("MASKDROP_SEED", str(time.time_ns() % 10**6)))
    print(f"seed {seed}; give it again with MASKDROP_SEED")
    run = Run(rooms, weights, faces, seed, pictures, kills)
    try:
        outcome = run.run()
    finally:
        run.daemon.destroy()
    print(outcome)
    found = outcome.findings
    assert found.archived + found.quarantined == pictures
    assert found.results == len(TAILS) * found.archived
    assert sum(outcome.blows.values()) == kills
    # Drained; drain cut short by a second SIGTERM; killed; SIGTERM before there was anything to drain.
    assert set(outcome.exits) <= {0, 1, -signal.SIGKILL, -signal.SIGTERM}


def test_short_chaos(rooms: Rooms, tiny_weights: Path, faces: list[Path]) -> None:
    unleash(rooms, tiny_weights, faces, pictures=400, kills=15)


@pytest.mark.chaos
@pytest.mark.timeout(0)
def test_long_chaos(rooms: Rooms, tiny_weights: Path, faces: list[Path]) -> None:
    pictures = int(os.environ.get("MASKDROP_CHAOS_PICTURES", "10000"))
    kills = int(os.environ.get("MASKDROP_CHAOS_KILLS", "200"))
    unleash(rooms, tiny_weights, faces, pictures, kills)
