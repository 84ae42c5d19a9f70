"""SIGHUP: the configuration is read again, checked, and taken up without losing a picture."""

import fcntl
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

import maskdrop
from drawing import face_bytes
from maskdrop.config import FolderSettings, Section, Settings
from maskdrop.supervisor.renewal import changes
from maskdrop.ticket import Stage
from maskdrop.topology.worker import settings_of
from running import EXECUTED, PAIRS, QUICK, Daemon, Rooms
from waiting import wait_for

Start = Callable[..., Daemon]


def reload(daemon: Daemon, settings: str) -> None:
    (daemon.rooms.base / "maskdrop.toml").write_text(settings)
    daemon.process.send_signal(signal.SIGHUP)


def pids(daemon: Daemon) -> dict[str, list[int]]:
    return {stage: daemon.workers(stage) for stage in ("preprocess", "infer", "save")}


def wait_taken_up(daemon: Daemon, times: int = 1) -> None:
    daemon.wait_log("the configuration is taken up", times)
    wait_for(
        lambda: (h := daemon.health()) and h["state"] == "running" and not h["reason"],
        "the new workers ready",
    )


def test_in_mid_load_only_the_workers_that_a_change_concerns_are_replaced(start: Start, rooms: Rooms) -> None:
    for index in range(200):
        rooms.drop(f"{index:03}.jpg", face_bytes(index))
    daemon = start(settings=PAIRS).wait_ready()
    daemon.wait_count("saved", 20)
    before = pids(daemon)
    reload(daemon, PAIRS + '[save]\nformat = "png"\n')
    wait_taken_up(daemon)
    daemon.wait_count("saved", 200)
    after = pids(daemon)
    assert (after["preprocess"], after["infer"]) == (before["preprocess"], before["infer"])
    assert not set(after["save"]) & set(before["save"])
    assert len(after["save"]) == 2
    assert "configuration read again: save.format changed" in daemon.log
    assert daemon.stop() == 0
    results = rooms.pictures("outbox")
    assert [Path(name).stem for name in results] == [f"{index:03}" for index in range(200)]
    assert {Path(name).suffix for name in results} == {".jpg", ".png"}
    assert len(rooms.pictures("archive")) == 200
    assert rooms.pictures("inbox") == rooms.pictures("quarantine") == []
    assert "died" not in daemon.log


def test_workers_and_slots_may_become_more_and_fewer(start: Start, rooms: Rooms) -> None:
    daemon = start(settings=PAIRS).wait_ready()
    fewer = PAIRS.replace("save = 2", "save = 1")
    reload(daemon, fewer.replace("preprocess = 2", "preprocess = 3\nslots = 5"))
    wait_taken_up(daemon)
    assert {stage: len(found) for stage, found in pids(daemon).items()} == {
        "preprocess": 3,
        "infer": 1,
        "save": 1,
    }
    assert daemon.health()["queues"]["free_slots"] == 5
    rooms.drop("a.jpg", face_bytes(1))
    daemon.wait_count("saved", 1)
    assert daemon.stop() == 0


BAD_FILES = {
    "[watch\n": "is not TOML",
    "[save]\nquality = 300\n": "save.quality = 300",
    '[log]\nfile = "/proc/nowhere/log"\n': "log.file",
    '[folders]\narchive = "/proc/archive"\n': "folders.archive",
}


def test_bad_files_keep_the_old_configuration_and_say_why(start: Start, rooms: Rooms) -> None:
    daemon = start(settings=QUICK).wait_ready()
    before = pids(daemon)
    for number, (content, words) in enumerate(BAD_FILES.items(), 1):
        reload(daemon, content)
        daemon.wait_log("the new configuration is not taken", number)
        line = [line for line in daemon.log.splitlines() if "is not taken" in line][-1]
        assert words in line
        assert "going on with the old one" in line
        assert pids(daemon) == before
        rooms.drop(f"{number}.jpg", face_bytes(number))
        daemon.wait_count("saved", number)
    reload(daemon, QUICK + 'weights = "/nowhere"\n')
    daemon.wait_log("configuration read again")  # the command line's go before the file's: nothing is wrong
    rooms.drop("last.jpg", face_bytes(9))
    daemon.wait_count("saved", len(BAD_FILES) + 1)
    assert daemon.log.count("is not taken") == len(BAD_FILES)
    assert daemon.stop() == 0


def test_of_two_reloads_in_a_row_the_last_one_decides_about_the_log(start: Start, rooms: Rooms) -> None:
    """The first is still waiting for a picture in hand when the second comes."""
    daemon = start(settings=QUICK).wait_ready()
    (infer,) = daemon.workers("infer")
    os.kill(infer, signal.SIGSTOP)
    rooms.drop("held.jpg", face_bytes(1))
    daemon.wait_health(lambda health: health["in_flight"] == 1, "a picture in hand")
    files = [rooms.base / f"{number}.log" for number in range(2)]
    for number, file in enumerate(files):
        reload(daemon, QUICK + f"[log]\nfile = '{file}'\n")
        daemon.wait_log("configuration read again: log.file changed", number + 1)
    os.kill(infer, signal.SIGCONT)
    wait_taken_up(daemon)
    rooms.drop("after.jpg", face_bytes(2))
    daemon.wait_count("saved", 2)
    wait_for(lambda: "saved after.jpg" in files[1].read_text(), "its line in the last log")
    assert "saved after.jpg" not in files[0].read_text()
    assert daemon.stop() == 0


@pytest.mark.parametrize("folder", ['"~nobody-of-this-name/x"', '"/a\\u0000b"'])
def test_folders_that_are_no_paths_keep_the_old_configuration(
    start: Start, rooms: Rooms, folder: str
) -> None:
    daemon = start(settings=QUICK).wait_ready()
    reload(daemon, QUICK + f"[folders]\narchive = {folder}\n")
    daemon.wait_log("the new configuration is not taken: ")
    rooms.drop("a.jpg", face_bytes(1))
    daemon.wait_count("saved", 1)
    assert "Traceback" not in daemon.log
    assert daemon.stop() == 0


def test_weights_of_another_network_are_found_out_and_the_old_ones_go_on(start: Start, rooms: Rooms) -> None:
    daemon = start(settings=QUICK).wait_ready()
    reload(daemon, QUICK + 'classes = ["background", "skin"]\n[save]\nkeep = ["skin"]\n')
    daemon.wait_log("the new configuration is not taken")
    wait_taken_up(daemon, times=2)
    rooms.drop("a.jpg", face_bytes(1))
    daemon.wait_count("saved", 1)
    reload(daemon, QUICK + "[save]\nquality = 50\n")
    wait_taken_up(daemon, times=3)
    assert daemon.stop() == 0


def test_another_reload_meanwhile_does_not_make_a_bad_configuration_stay(start: Start, rooms: Rooms) -> None:
    """Its worker, which the other reload leaves alone, has yet to say what is wrong."""
    daemon = start(settings=QUICK, env=EXECUTED).wait_ready()
    two_classes = QUICK + 'classes = ["background", "skin"]\n[save]\nkeep = ["skin"]\n'
    for times, settings in enumerate((two_classes, two_classes + "quality = 60\n"), start=1):
        reload(daemon, settings)
        daemon.wait_log("the configuration is taken up", times)
    daemon.wait_log("the new configuration is not taken")
    wait_taken_up(daemon, times=3)
    rooms.drop("a.jpg", face_bytes(1))
    daemon.wait_count("saved", 1)
    assert daemon.stop() == 0


def test_a_hung_worker_that_is_replaced_is_killed(start: Start, rooms: Rooms) -> None:
    settings = QUICK.replace("[workers]", "[workers]\nstage_timeout_s = 3")
    daemon = start(settings=settings).wait_ready()
    (save,) = daemon.workers("save")
    os.kill(save, signal.SIGSTOP)
    reload(daemon, settings + "[save]\nquality = 60\n")
    wait_taken_up(daemon)
    wait_for(lambda: not Path(f"/proc/{save}").exists(), "the end of the one that hangs")
    rooms.drop("a.jpg", face_bytes(1))
    daemon.wait_count("saved", 1)
    assert daemon.stop() == 0


def test_workers_that_never_start_are_found_out_and_the_old_ones_go_on(start: Start, rooms: Rooms) -> None:
    daemon = start(settings=QUICK, env=EXECUTED).wait_ready()
    hasty = QUICK.replace("[workers]", "[workers]\nstart_timeout_s = 0.1").replace("= 256", "= 320")
    reload(daemon, hasty)
    daemon.wait_log("the new configuration is not taken: worker ")
    assert "was hung and killed: not ready after 0.1 s" in daemon.log
    wait_taken_up(daemon, times=2)
    rooms.drop("a.jpg", face_bytes(1))
    daemon.wait_count("saved", 1)
    assert daemon.stop() == 0


def test_a_reload_may_give_workers_the_time_that_they_need_to_start(start: Start, rooms: Rooms) -> None:
    """They have failed so far: that is the old configuration's fault."""
    daemon = start(settings=QUICK.replace("[workers]", "[workers]\nstart_timeout_s = 0.1"), env=EXECUTED)
    daemon.wait_log("was hung and killed: not ready after 0.1 s")
    reload(daemon, QUICK)
    wait_taken_up(daemon)
    assert "not taken" not in daemon.log
    rooms.drop("a.jpg", face_bytes(1))
    daemon.wait_count("saved", 1)
    assert daemon.stop() == 0


def test_a_reload_is_not_refused_for_what_ails_a_worker_that_it_leaves_alone(
    start: Start, rooms: Rooms, tiny_weights: Path
) -> None:
    weights, spoilt = rooms.base / "w.safetensors", rooms.base / "spoilt"
    shutil.copy(tiny_weights, weights)
    daemon = start("--weights", str(weights), settings=QUICK).wait_ready()
    spoilt.write_bytes(b"spoilt")
    spoilt.replace(weights)
    os.kill(daemon.workers("infer")[0], signal.SIGKILL)
    daemon.wait_log("worker infer-0 (pid ", times=2)  # killed, then unfit
    reload(daemon, QUICK + "[save]\nquality = 60\n")
    daemon.wait_log("the configuration is taken up")
    daemon.wait_log("can't work:", times=daemon.log.count("can't work:") + 1)
    shutil.copy(tiny_weights, spoilt)
    spoilt.replace(weights)
    daemon.wait_ready()
    assert "not taken" not in daemon.log
    rooms.drop("a.jpg", face_bytes(1))
    daemon.wait_count("saved", 1)
    assert daemon.stop() == 0


def test_a_reload_that_is_asked_for_during_the_start_is_made(start: Start, rooms: Rooms) -> None:
    daemon = start(settings=QUICK, env=EXECUTED)
    status = Path(f"/proc/{daemon.process.pid}/status")
    hang_up = 1 << (signal.SIGHUP - 1)

    def is_held_off() -> bool:
        sets = [
            line.split()[1] for line in status.read_text().splitlines() if line[:6] in ("SigBlk", "SigIgn")
        ]
        return any(int(bits, 16) & hang_up for bits in sets)

    wait_for(is_held_off, "that a hang-up does not end it")
    reload(daemon, QUICK + "[save]\nquality = 60\n")
    daemon.wait_ready()
    daemon.wait_log("configuration read again")
    rooms.drop("a.jpg", face_bytes(1))
    daemon.wait_count("saved", 1)
    assert daemon.stop() == 0


def test_a_log_file_that_is_gone_when_it_goes_back_ends_nothing(start: Start, rooms: Rooms) -> None:
    log = rooms.base / "logs" / "daemon.log"
    settings = QUICK + f"[log]\nfile = '{log}'\n"
    daemon = start(settings=settings).wait_ready()
    (infer,) = daemon.workers("infer")
    os.kill(infer, signal.SIGSTOP)
    rooms.drop("a.jpg", face_bytes(1))
    daemon.wait_health(lambda h: h["in_flight"] == 1, "a picture in hand")
    two_classes = QUICK + "classes = ['background', 'skin']\n[save]\nkeep = ['skin']\n"
    reload(daemon, two_classes + f"[log]\nfile = '{rooms.base}/other.log'\n")
    daemon.wait_log("configuration read again")
    log.parent.rename(rooms.base / "away")
    log.parent.touch()
    os.kill(infer, signal.SIGCONT)
    daemon.wait_log("log.file")
    wait_taken_up(daemon, times=2)
    daemon.wait_count("saved", 1)
    assert daemon.stop() == 0


def test_a_new_inbox_is_watched_and_the_old_one_let_go(start: Start, rooms: Rooms) -> None:
    (rooms.base / "other").mkdir()
    config = f'{QUICK}[folders]\ninbox = "{rooms.inbox}"\noutbox = "{rooms.outbox}"\n'
    daemon = start(settings=config, inbox_by_file=True).wait_ready()
    reload(daemon, config.replace(str(rooms.inbox), str(rooms.base / "other")))
    wait_taken_up(daemon)
    temporary = rooms.base / "other" / ".a"
    temporary.write_bytes(face_bytes(1))
    temporary.rename(rooms.base / "other" / "a.jpg")
    daemon.wait_count("saved", 1)
    assert rooms.pictures("outbox") == ["a.jpg"]
    with (rooms.inbox / ".maskdrop.lock").open("r+") as lock:
        wait_for(lambda: _locks(lock.fileno()), "the old inbox unlocked")
    assert daemon.stop() == 0


def test_a_reload_follows_another_that_is_still_waiting_to_the_same_inbox(start: Start, rooms: Rooms) -> None:
    """The first has locked that inbox; it isn't somebody else who has it."""
    (rooms.base / "other").mkdir()
    config = f'{QUICK}[folders]\ninbox = "{rooms.inbox}"\noutbox = "{rooms.outbox}"\n'
    elsewhere = config.replace(str(rooms.inbox), str(rooms.base / "other"))
    daemon = start(settings=config, inbox_by_file=True).wait_ready()
    (infer,) = daemon.workers("infer")
    os.kill(infer, signal.SIGSTOP)
    rooms.drop("held.jpg", face_bytes(1))
    daemon.wait_health(lambda health: health["in_flight"] == 1, "a picture in hand")
    reload(daemon, elsewhere)
    daemon.wait_log("configuration read again: folders.inbox changed")
    reload(daemon, elsewhere + "[save]\nquality = 80\n")
    daemon.wait_log("configuration read again: folders.inbox, save.quality changed")
    with (rooms.base / "other" / ".maskdrop.lock").open("r+") as lock:
        assert not _locks(lock.fileno())
    os.kill(infer, signal.SIGCONT)
    wait_taken_up(daemon)
    (rooms.base / "other" / "a.jpg").write_bytes(face_bytes(2))
    daemon.wait_count("saved", 1)  # the one in hand went back to the old inbox
    assert "is not taken" not in daemon.log
    with (rooms.base / "other" / ".maskdrop.lock").open("r+") as lock:
        assert not _locks(lock.fileno())
    assert daemon.stop() == 0


def test_a_reload_returns_to_an_inbox_that_is_not_given_up_yet(start: Start, rooms: Rooms) -> None:
    """The daemon is in its new inbox, and keeps the old one until its new workers are ready."""
    (rooms.base / "other").mkdir()
    config = f'{QUICK}[folders]\ninbox = "{rooms.inbox}"\noutbox = "{rooms.outbox}"\n'
    daemon = start(settings=config, inbox_by_file=True).wait_ready()
    before = daemon.workers("infer")
    elsewhere = config.replace(str(rooms.inbox), str(rooms.base / "other"))
    reload(daemon, elsewhere.replace("[folders]", "precision = 'fp32'\n[folders]"))  # for another worker, too
    daemon.wait_log("the configuration is taken up")
    wait_for(lambda: (new := daemon.workers("infer")) and new != before, "another inference worker")
    (infer,) = daemon.workers("infer")
    os.kill(infer, signal.SIGSTOP)
    reload(daemon, config)
    daemon.wait_log("configuration read again", 2)
    wait_taken_up(daemon, 2)  # without that worker
    rooms.drop("a.jpg", face_bytes(1))
    daemon.wait_count("saved", 1)
    assert "is not taken" not in daemon.log
    with (rooms.base / "other" / ".maskdrop.lock").open("r+") as lock:
        wait_for(lambda: _locks(lock.fileno()), "the other inbox unlocked")
    assert daemon.stop() == 0


def _locks(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


GOING_BACK = """
import sys
from maskdrop.config import Settings
from maskdrop.supervisor.premises import take_premises
from maskdrop.supervisor.renewal import Renewal

def settings(quality):
    return Settings.model_validate({
        "folders": {"inbox": sys.argv[1], "outbox": sys.argv[2]},
        "model": {"device": "cpu"},
        "save": {"quality": quality},
    })

read = iter([settings(80), settings(70)])
renewal = Renewal(take_premises(settings(95)), lambda: next(read))
renewal.request()
renewal.take_up()
renewal.request()
for _ in range(2):
    renewal.go_back("a worker can't work with them")
    print(renewal.take_up().settings.save.quality, renewal.can_go_back)
renewal.leave()
"""


def test_a_configuration_that_was_mended_before_the_bad_one_was_found_out_is_taken_up(rooms: Rooms) -> None:
    """And if that is bad too, those go on that were good."""
    command = [sys.executable, "-c", GOING_BACK, str(rooms.inbox), str(rooms.outbox)]
    told = subprocess.run(command, capture_output=True, text=True, check=True)
    assert told.stdout.splitlines() == ["70 True", "95 False"]
    refused = [line.split(": ", 1)[1] for line in told.stderr.splitlines() if "is not taken" in line]
    assert refused == [
        "a worker can't work with them; going on with the one that was read after it",
        "a worker can't work with them; going on with the old one",
    ]


def test_nothing_changed_replaces_nobody(start: Start, rooms: Rooms) -> None:
    daemon = start(settings=QUICK).wait_ready()
    before = pids(daemon)
    daemon.process.send_signal(signal.SIGHUP)
    daemon.wait_log("configuration read again: nothing has changed")
    assert pids(daemon) == before
    assert daemon.stop() == 0


def test_changes_are_named_by_section_and_key() -> None:
    old = Settings(folders=FolderSettings(inbox=Path("/i"), outbox=Path("/o")))
    assert changes(old, old) == []
    new = old.with_values({"save": {"quality": 50}, "log": {"level": "debug"}})
    assert changes(old, new) == ["save.quality", "log.level"]


ROOT = Path(maskdrop.__file__).parent
READ_BY = {
    Stage.PREPROCESS: ["preprocess.py", "decoding.py", "original.py", "colours.py", "locate.py"],
    Stage.INFER: ["infer.py", "model/parser.py"],
    Stage.SAVE: ["save.py", "outbox.py", "quarantine.py", "results/mask.py", "results/render.py"],
}


@pytest.mark.parametrize("stage", list(Stage))
def test_all_that_a_stage_reads_of_the_settings_counts_for_its_replacement(stage: Stage) -> None:
    plain = Settings(folders=FolderSettings(inbox=Path("/i"), outbox=Path("/o")))
    counted = [section for section in settings_of(stage, plain) if isinstance(section, Section)]
    names = {name for name in Settings.model_fields if getattr(plain, name) in counted}
    read = {
        match
        for file in READ_BY[stage]
        for match in re.findall(r"settings\.(\w+)", (ROOT / file).read_text())
        if match in Settings.model_fields
    }
    assert read
    # A preprocess worker reads the names of results in a batch alone, which never reloads.
    apart = {Stage.INFER: {"workers", "save"}, Stage.PREPROCESS: {"save"}, Stage.SAVE: set[str]()}
    assert read - names <= apart[stage]
    if stage is Stage.INFER:
        of_save = re.findall(r"settings\.save\.\S+", (ROOT / "infer.py").read_text())
        assert of_save == ["settings.save.wants_certainty"]
        assert settings_of(stage, plain) != settings_of(
            stage, plain.with_values({"save": {"outputs": ["face", "json"]}})
        )
        assert set(re.findall(r"workers\.(\w+)", (ROOT / "infer.py").read_text())) <= {
            "max_batch",
            "max_wait_ms",
        }


def test_a_client_that_asks_for_metrics_ever_so_slowly_does_not_hold_up_a_reload(
    start: Start, rooms: Rooms
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    daemon = start(settings=f"{QUICK}[metrics]\nport = {port}\n").wait_ready()
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"GET /metrics HTTP/1.0\r\nX-Slow: ")
        reload(daemon, QUICK)

        def is_hung_up() -> bool:
            try:
                client.sendall(b"x")
            except OSError:
                return True
            return False

        wait_for(is_hung_up, "the connection to be closed")
    wait_taken_up(daemon)
    assert daemon.stop() == 0


def test_the_metrics_follow_to_another_port(start: Start, rooms: Rooms) -> None:
    with socket.socket() as first, socket.socket() as second:
        for probe in (first, second):
            probe.bind(("127.0.0.1", 0))
        ports = [probe.getsockname()[1] for probe in (first, second)]
    daemon = start(settings=f"{QUICK}[metrics]\nport = {ports[0]}\n").wait_ready()
    reload(daemon, f"{QUICK}[metrics]\nport = {ports[1]}\n")
    wait_taken_up(daemon)
    with urllib.request.urlopen(f"http://127.0.0.1:{ports[1]}/metrics") as page:
        assert b"maskdrop_pictures_saved_total" in page.read()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", ports[0]))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", ports[0]))
        taken.listen()
        reload(daemon, f"{QUICK}[metrics]\nport = {ports[0]}\n")
        daemon.wait_log("the new configuration is not taken: metrics.port")
    assert daemon.stop() == 0


def test_the_metrics_file_follows_to_another_name_and_goes_with_its_setting(
    start: Start, rooms: Rooms
) -> None:
    first, second = rooms.base / "first.prom", rooms.base / "second.prom"
    daemon = start(settings=f"{QUICK}[metrics]\nfile = '{first}'\n").wait_ready()
    wait_for(first.exists, "the first file")
    reload(daemon, f"{QUICK}[metrics]\nfile = '{second}'\n")
    wait_taken_up(daemon)
    assert second.exists()
    assert not first.exists()
    reload(daemon, QUICK)
    wait_taken_up(daemon, times=2)
    assert not second.exists()
    assert daemon.stop() == 0


RENEWALS = """
import fcntl, logging, sys
from pathlib import Path
from maskdrop.config import Settings
from maskdrop.supervisor.premises import take_premises
from maskdrop.supervisor.renewal import Renewal

base = Path(sys.argv[1])

def settings(inbox, quality=95, log=None):
    return Settings.model_validate({
        "folders": {"inbox": base / inbox, "outbox": base / "out"},
        "model": {"device": "cpu"}, "save": {"quality": quality},
        "log": {"file": log and base / log},
    })

def is_locked(inbox):
    with (base / inbox / ".maskdrop.lock").open("r+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False

def begun(*later):
    read = iter(later)
    return Renewal(take_premises(settings("a")), lambda: next(read))

def log_is_at(file):
    logging.getLogger("maskdrop").warning("afterwards")
    return "afterwards" in (base / file).read_text()
"""


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        (
            """
renewal = begun(settings("b"), settings("a", 80))
renewal.request(); renewal.take_up(); renewal.request(); renewal.confirm()
print(len(renewal.take_up().slots.pictures) > 0, is_locked("a"))
""",
            "True True",
        ),
        (
            """
renewal = begun(settings("a", 80), settings("b"))
for _ in range(2): renewal.request(); renewal.take_up()
print(is_locked("a"), is_locked("b"))
renewal.go_back("no good"); renewal.take_up()
print(is_locked("a"), is_locked("b"))
""",
            "True True True False",
        ),
        (
            """
renewal = begun(settings("a", 80, "new.log"), settings("a"))
renewal.request(); print(log_is_at("new.log"))
renewal.request(); (base / "new.log").write_text(""); print(log_is_at("new.log"))
""",
            "True False",
        ),
        (
            """
renewal = begun(settings("a", 80, "new.log"))
renewal.request(); renewal.take_up(); print(log_is_at("new.log"))
renewal.go_back("no good"); renewal.take_up()
(base / "new.log").write_text(""); print(log_is_at("new.log"))
""",
            "True False",
        ),
    ],
    ids=["what is pending", "what to go back to", "the log when withdrawn", "the log when it goes back"],
)
def test_of_premises_that_follow_one_another_what_is_still_needed_stays(
    tmp_path: Path, steps: str, told: str
) -> None:
    for inbox in ("a", "b"):
        (tmp_path / inbox).mkdir()
    command = [sys.executable, "-c", RENEWALS + steps, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.stdout.split(), done.returncode) == (told.split(), 0), done.stderr
