"""The health checks of docs/monitoring.md, as it shows them, on a daemon that runs, is degraded, is gone."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from drawing import face_bytes
from maskdrop.health.file import State, content_of, is_fresh
from running import QUICK, Daemon, Rooms, maskdrop
from test_top import full_health
from waiting import PATIENCE_S, wait_for

Start = Callable[..., Daemon]

ROOT = Path(__file__).parent.parent
DOC = (ROOT / "docs" / "monitoring.md").read_text()
HEALTHCHECK = re.findall(r"^HEALTHCHECK .*\n.*\n", (ROOT / "Containerfile").read_text(), re.MULTILINE)[0]
DOCS_HEALTH_FILE = "/run/maskdrop/health.json"


def checks() -> dict[str, str | list[str]]:
    """By name: a shell command, or a list of arguments, out of the page's code blocks."""
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", DOC, re.DOTALL | re.MULTILINE)
    shell = [text.strip() for language, text in blocks if language == "sh"]
    (docker,) = (text for language, text in blocks if language == "dockerfile")
    (kubernetes,) = (text for language, text in blocks if "Probe:" in text)
    (jq,) = (text for text in shell if text.startswith("jq "))
    (nagios,) = (text for text in shell if "--nagios" in text)
    found: dict[str, str | list[str]] = {"jq": jq, "nagios": nagios}
    assert docker.split() == HEALTHCHECK.split(), "the page and the Containerfile differ"
    found["docker"] = json.loads(docker.partition("CMD ")[2])
    for name, command in re.findall(r"^(\w+)Probe:\n  exec:\n    command: (.*)$", kubernetes, re.MULTILINE):
        found[name] = json.loads(command)
    assert set(found) == {"jq", "nagios", "docker", "liveness", "readiness"}
    return found


@pytest.mark.parametrize(
    "content",
    [
        {"state": "running", "updated_at": "2026-01-01T00:00:00+00:00"},
        {"state": "running", "updated_at": "yesterday"},
        {"state": "running", "updated_at": 7, "counts": []},
    ],
)
def test_a_health_file_of_another_version_is_told_in_one_line(tmp_path: Path, content: object) -> None:
    file = tmp_path / "health.json"
    file.write_text(json.dumps(content))
    told = maskdrop(["status", "--health", str(file)])
    assert told.returncode == 1
    assert told.stderr == f"maskdrop: {file}: not a health file of this version of maskdrop\n"


@pytest.fixture
def run_checks(rooms: Rooms) -> Callable[..., dict[str, int]]:
    """Runs all the page's checks at once on the rooms' health file, with a maskdrop in the path."""
    program = rooms.base / "bin" / "maskdrop"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m maskdrop "$@"\n')
    program.chmod(0o755)

    def run() -> dict[str, int]:
        started = {}
        for name, check in checks().items():
            if name == "jq" and shutil.which("jq") is None:
                continue
            assert DOCS_HEALTH_FILE in check if isinstance(check, list) else check.endswith(DOCS_HEALTH_FILE)
            command = ["sh", "-c", check] if isinstance(check, str) else check
            file = shlex.quote(str(rooms.health)) if isinstance(check, str) else str(rooms.health)
            here = [part.replace(DOCS_HEALTH_FILE, file) for part in command]
            path = f"{program.parent}:/usr/local/bin:/usr/bin:/bin"
            started[name] = subprocess.Popen(
                ["env", f"PATH={path}", *here], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        codes = {}
        for name, process in started.items():
            out, err = process.communicate(timeout=PATIENCE_S)
            codes[name] = process.returncode
            assert "Traceback" not in out + err
            if name == "nagios":
                assert re.fullmatch(NAGIOS, out), out
        return codes

    return run


NUMBER = r"-?[\d.]+"
PERFORMANCE = rf"[^ =]+=(U|{NUMBER}(c|s|ms|%|))(;({NUMBER})?)*"
NAGIOS = rf"MASKDROP (OK|WARNING|CRITICAL|UNKNOWN) - [^|\n]+( \| {PERFORMANCE}( {PERFORMANCE})*)?\n"
"""One line, performance data behind the bar, as the Monitoring Plugins Development Guidelines have it."""


def with_jq(codes: dict[str, int]) -> dict[str, int]:
    """Expected codes, less jq's where there is none."""
    return {name: code for name, code in codes.items() if name != "jq" or shutil.which("jq")}


def test_health_checks_tell_running_from_degraded_from_gone(
    start: Start, rooms: Rooms, run_checks: Callable[..., dict[str, int]]
) -> None:
    settings = QUICK.replace("interval_s = 0.2", "interval_s = 1.0")
    daemon = start(settings=settings).wait_ready()
    well = dict.fromkeys(("jq", "nagios", "docker", "liveness", "readiness"), 0)
    assert run_checks() == with_jq(well)
    rooms.outbox.rename(rooms.base / "away")
    rooms.drop("a.jpg", face_bytes(1))
    daemon.wait_health(lambda h: h["state"] == "degraded", "state degraded")
    assert run_checks() == with_jq({"jq": 1, "nagios": 1, "docker": 1, "liveness": 0, "readiness": 1})
    (rooms.base / "away").rename(rooms.outbox)
    daemon.wait_ready()
    daemon.kill()
    health = json.loads(rooms.health.read_text())
    assert health["state"] == "running", "nobody told the file"
    gone = {"jq": 1, "nagios": 2, "docker": 1, "liveness": 1, "readiness": 1}
    wait_for(lambda: not is_fresh(health), "a file of the past")
    wait_for(lambda: run_checks() == with_jq(gone), "all of them to see it")
    rooms.health.write_text("{")
    broken = run_checks()
    assert broken.pop("jq", 2) != 0
    assert broken == {"nagios": 3, "docker": 1, "liveness": 1, "readiness": 1}
    rooms.health.unlink()
    absent = run_checks()
    assert absent.pop("jq", 2) != 0
    assert absent == {"nagios": 2, "docker": 1, "liveness": 1, "readiness": 1}
    if shutil.which("jq") is None:
        pytest.skip("all did but jq's, which needs jq: apt-get install jq")


def test_a_file_dated_in_the_future_is_not_of_now_to_any_of_them(
    rooms: Rooms, run_checks: Callable[..., dict[str, int]]
) -> None:
    future = (datetime.now(UTC) + timedelta(hours=2)).isoformat()
    rooms.health.write_bytes(content_of(full_health(updated_at=future, interval_s=1.0)))
    gone = {"jq": 1, "nagios": 2, "docker": 1, "liveness": 1, "readiness": 1}
    assert run_checks() == with_jq(gone)
    for form in (["status"], ["status", "--nagios"], ["top", "--once"]):
        shown = maskdrop([*form, "--health", str(rooms.health)]).stdout
        assert re.search(r"dated 7\d\d\d s in the future: is the clock wrong\?", shown), shown


def test_nagios_knows_backlogs(start: Start, rooms: Rooms) -> None:
    daemon = start(settings=QUICK.replace("settle_ms = 100", "settle_ms = 3600000")).wait_ready()
    for index in range(3):
        rooms.drop(f"{index}.jpg", face_bytes(index))
    daemon.wait_health(lambda h: h["backlog"] == 3, "a backlog of three")

    def nagios(*limits: str) -> tuple[int, str]:
        done = maskdrop(["status", "--nagios", "--health", str(rooms.health), *limits])
        assert re.fullmatch(NAGIOS, done.stdout)
        return done.returncode, done.stdout

    assert nagios("--backlog-warning", "4")[0] == 0
    code, line = nagios("--backlog-warning", "3", "--backlog-critical", "4")
    assert code == 1
    assert line.startswith("MASKDROP WARNING - running, 0.0 pictures/s, backlog 3 | backlog=3;3;4;0 ")
    assert nagios("--backlog-warning", "1", "--backlog-critical", "3")[0] == 2
    assert daemon.stop() == 0
    assert nagios()[1].startswith("MASKDROP CRITICAL - stopped: drained | ")


def test_nagios_judges_each_state(rooms: Rooms) -> None:
    for state, code in {"starting": 1, "degraded": 1, "draining": 0, "running": 0, "stopped": 2}.items():
        rooms.health.write_bytes(content_of(full_health(state=State(state))))
        assert maskdrop(["status", "--nagios", "--health", str(rooms.health)]).returncode == code


def test_a_reason_breaks_no_performance_data_and_what_is_not_known_is_told_so(rooms: Rooms) -> None:
    rooms.health.write_bytes(content_of(full_health(state=State.DEGRADED, reason="disk |full|\nnow")))
    done = maskdrop(["status", "--nagios", "--health", str(rooms.health)])
    assert done.returncode == 1
    assert re.fullmatch(NAGIOS, done.stdout)
    assert done.stdout.startswith("MASKDROP WARNING - degraded: disk /full/\\nnow, ")
    assert " p99=U;;;0 " in done.stdout


def test_alive_is_what_a_restart_could_not_mend_but_not_what_has_stopped(rooms: Rooms) -> None:
    for state, code in {"degraded": 0, "stopped": 1}.items():
        rooms.health.write_bytes(content_of(full_health(state=State(state))))
        assert maskdrop(["status", "--alive", "--health", str(rooms.health)]).returncode == code


def test_a_file_is_of_the_past_once_five_updates_were_missed_but_not_within_five_seconds() -> None:
    def is_of_now(interval_s: float, **age: float) -> bool:
        updated_at = (datetime.now(UTC) - timedelta(**age)).isoformat()
        return is_fresh({"updated_at": updated_at, "interval_s": interval_s})

    assert [is_of_now(3600.0, hours=hours) for hours in (4, 6)] == [True, False]
    assert [is_of_now(0.1, seconds=seconds) for seconds in (1, 60)] == [True, False]
