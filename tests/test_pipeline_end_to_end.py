"""Pictures through the whole daemon: what lands where, by real processes and files."""

import json
from collections.abc import Callable

from drawing import face_bytes
from running import EXECUTED, PAIRS, Daemon, Rooms

Start = Callable[..., Daemon]


def test_present_at_start_and_dropped_while_running_are_all_saved(start: Start, rooms: Rooms) -> None:
    for index in range(100):
        rooms.drop(f"early-{index:03}.jpg", face_bytes(index))
    daemon = start(settings=PAIRS, env=EXECUTED).wait_ready()
    for index in range(200):
        rooms.drop(f"late-{index:03}.jpg", face_bytes(1000 + index))
    daemon.wait_count("saved", 300, 240)
    names = sorted([f"early-{i:03}.jpg" for i in range(100)] + [f"late-{i:03}.jpg" for i in range(200)])
    assert rooms.pictures("outbox") == names
    assert rooms.pictures("archive") == names
    assert rooms.pictures("inbox") == []
    assert daemon.stop() == 0
    health = json.loads(rooms.health.read_text())
    assert health["state"] == "stopped"
    assert health["counts"] == {"accepted": 300, "saved": 300, "quarantined": 0, "retried": 0, "left": 0}
