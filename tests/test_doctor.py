"""`maskdrop doctor`: real limits, real file systems, real permissions, each told with its remedy."""

import json
import os
import resource
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from maskdrop.machine.cores import usable_cores
from maskdrop.supervisor.plan import GPU_BATCH, GPU_HELD
from running import Rooms, maskdrop

COMMAND = ["doctor", "--json"]
WITHOUT_ROOTS_POWERS = ["setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner", "--inh-caps=-all"]

Findings = dict[str, dict[str, str]]


def examine(
    *arguments: str, code: int | None = None, prefix: list[str] | None = None, **options: Any
) -> Findings:
    done = maskdrop([*COMMAND, *arguments], prefix or (), **options)
    findings = {entry["name"]: entry for entry in json.loads(done.stdout or done.stderr)}
    expected = int(any(entry["status"] == "fail" for entry in findings.values()))
    assert done.returncode == expected == (expected if code is None else code), done.stdout + done.stderr
    assert all(entry["remedy"] for entry in findings.values() if entry["status"] != "ok")
    return findings


def at(rooms: Rooms) -> list[str]:
    return ["--inbox", str(rooms.inbox), "--outbox", str(rooms.outbox)]


@pytest.fixture
def mount() -> Iterator[Callable[[Path, str], None]]:
    """Mounts a tmpfs on a folder, with options."""
    mounted: list[Path] = []

    def mount_at(folder: Path, options: str) -> None:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        if subprocess.run(command, capture_output=True).returncode != 0:
            pytest.skip("mounting a tmpfs needs root")
        mounted.append(folder)

    yield mount_at
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_fit_place_is_told_as_fit_and_left_as_it_was(rooms: Rooms) -> None:
    before = sorted(rooms.base.rglob("*"))
    findings = examine(*at(rooms), code=0)
    for name in (
        "inbox",
        "outbox",
        "quarantine",
        "archive",
        "health file",
        "rename to archive",
        "memory for slots",
    ):
        assert findings[name]["status"] == "ok", findings[name]
    assert "slots of 7.0 MiB are" in findings["memory for slots"]["told"]
    assert sorted(rooms.base.rglob("*")) == before
    people = maskdrop([*COMMAND[:-1], *at(rooms)])
    assert people.returncode == 0
    assert "rename to archive" in people.stdout


def test_without_a_configuration_the_machine_is_looked_at(tmp_path: Path) -> None:
    findings = examine(cwd=tmp_path)
    assert findings["configuration"]["status"] == "warning"
    assert "inbox" not in findings
    assert findings["file events"]["status"] in ("ok", "warning")


def test_a_wrong_configuration_fails_with_its_remedy(rooms: Rooms) -> None:
    config = rooms.base / "c.toml"
    config.write_text("[watch]\nsettle_sm = 5\n")
    finding = examine("--config", str(config), *at(rooms), code=1)["configuration"]
    assert "watch.settle_sm = 5: unknown key" in finding["told"]
    assert finding["remedy"] == "did you mean settle_ms?"


def test_what_a_configuration_names_is_looked_at(rooms: Rooms) -> None:
    config, weights = rooms.base / "c.toml", rooms.base / "w.safetensors"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config.write_text(f"[model]\nweights = '{weights}'\n[metrics]\nport = {port}\n")
        findings = examine("--config", str(config), *at(rooms), code=1)
    assert f"model.weights = {weights}: can't be read (No such file" in findings["weights"]["told"]
    assert findings["weights"]["remedy"] == "name a weights file, or leave it out"
    assert findings["metrics port"]["status"] == "warning"
    assert "(Address already in use)" in findings["metrics port"]["told"]
    weights.touch()
    findings = examine("--config", str(config), *at(rooms), code=0)
    assert (findings["weights"]["status"], findings["metrics port"]["status"]) == ("ok", "ok")
    for table in ("metrics", "log"):
        config.write_text(f"[{table}]\nfile = '{rooms.inbox / 'a.file'}'\n")
        findings = examine("--config", str(config), *at(rooms), code=1)
        assert findings["weights"]["told"] == "the embedded ones"
        assert f"{table}.file" in findings["folders"]["told"]
        assert "lies inside the inbox" in findings["folders"]["told"]


def test_folders_that_may_not_be_used_fail(rooms: Rooms) -> None:
    prefix: list[str] = []
    if os.geteuid() == 0:
        prefix = WITHOUT_ROOTS_POWERS
        if subprocess.run([*prefix, "true"], capture_output=True).returncode != 0:
            pytest.skip("capabilities can't be taken away here")
    rooms.outbox.chmod(0o555)
    rooms.quarantine.chmod(0o311)
    shutil.rmtree(rooms.archive)
    rooms.archive.write_text("a file")
    try:
        findings = examine(*at(rooms), code=1, prefix=prefix)
    finally:
        rooms.outbox.chmod(0o755)
        rooms.quarantine.chmod(0o755)
    assert (findings["inbox"]["status"], findings["outbox"]["status"]) == ("ok", "fail")
    assert "can't be written (Permission denied)" in findings["outbox"]["told"]
    assert "chown" in findings["outbox"]["remedy"]
    assert "can't be read" in findings["quarantine"]["told"]
    assert "is no folder" in findings["archive"]["told"]
    rooms.archive.unlink()
    assert examine(*at(rooms), code=0)["archive"]["status"] == "warning"
    rooms.base.chmod(0o555)
    missing = examine(*at(rooms), code=1, prefix=prefix)["archive"]
    rooms.base.chmod(0o755)
    assert f"mkdir -p {rooms.archive}" in missing["remedy"]


def test_folders_that_may_not_be_reached_are_told(rooms: Rooms) -> None:
    """As of the service, by somebody who isn't in its group: below a folder that isn't everybody's."""
    prefix = WITHOUT_ROOTS_POWERS if os.geteuid() == 0 else []
    if subprocess.run([*prefix, "true"], capture_output=True).returncode != 0:
        pytest.skip("capabilities can't be taken away here")
    closed = rooms.base / "closed"
    places = {name: closed / name for name in ("inbox", "outbox", "quarantine", "archive")}
    for place in places.values():
        place.mkdir(parents=True)
    config = rooms.base / "c.toml"
    lines = [f"{name} = '{place}'" for name, place in places.items()]
    config.write_text("\n".join(["[folders]", *lines, "[health]", f"file = '{closed / 'h.json'}'"]))
    closed.chmod(0)
    try:
        findings = examine("--config", str(config), code=1, prefix=prefix)
    finally:
        closed.chmod(0o755)
    for name in places:
        assert "can't be reached by" in findings[name]["told"]
        assert "sudo -u maskdrop" in findings[name]["remedy"]


def test_other_disks_full_disks_and_disks_without_inodes_are_told(
    rooms: Rooms, mount: Callable[[Path, str], None]
) -> None:
    mount(rooms.archive, "size=8m,nr_inodes=100")
    mount(rooms.outbox, "size=500m,nr_inodes=100000")
    findings = examine(*at(rooms), code=1)
    assert findings["rename to archive"]["status"] == "fail"
    assert "not atomic there (Invalid cross-device link)" in findings["rename to archive"]["told"]
    assert "on the inbox's file system" in findings["rename to archive"]["remedy"]
    assert findings["rename to quarantine"]["status"] == "ok"
    assert findings["room in archive"]["status"] == "fail"
    assert "8.0 MiB free, 99 files" in findings["room in archive"]["told"]
    assert findings["room in outbox"]["status"] == "warning"
    inside = examine("--inbox", str(rooms.inbox), "--outbox", str(rooms.inbox / "out"))
    assert "lies inside the inbox" in inside["folders"]["told"]


def test_a_disk_without_inodes_and_the_folder_of_a_log_are_told(
    rooms: Rooms, mount: Callable[[Path, str], None]
) -> None:
    config = rooms.base / "c.toml"
    config.write_text(f"[log]\nfile = '{rooms.base / 'logs' / 'maskdrop.log'}'\n")
    mount(rooms.outbox, "size=2g,nr_inodes=500")  # which takes no memory yet
    findings = examine("--config", str(config), *at(rooms), code=1)
    assert findings["room in outbox"]["status"] == "fail"
    assert "2.0 GiB free, 499 files can be made" in findings["room in outbox"]["told"]
    assert findings["log file"]["remedy"] == f"mkdir -p {rooms.base / 'logs'}"


@pytest.mark.parametrize(
    ("limit", "soft", "name", "told"),
    [
        (resource.RLIMIT_NOFILE, 70, "open files", "70 may be open"),
        (resource.RLIMIT_FSIZE, 2**20, "memory for slots", "no file may be larger than 1.0 MiB"),
        (resource.RLIMIT_AS, 2**30, "address space", "a process may use 1.0 GiB"),
    ],
)
def test_small_limits_fail(rooms: Rooms, limit: int, soft: int, name: str, told: str) -> None:
    hard = resource.getrlimit(limit)[1]
    finding = examine(*at(rooms), code=1, preexec_fn=lambda: resource.setrlimit(limit, (soft, hard)))[name]
    assert finding["status"] == "fail"
    assert told in finding["told"]
    assert "ulimit" in finding["remedy"]


def test_more_slots_than_there_is_memory_fail(rooms: Rooms) -> None:
    config = rooms.base / "c.toml"
    config.write_text("[workers]\nslots = 4096\n[model]\ninput_size = 4096\n")
    finding = examine("--config", str(config), *at(rooms), code=1)["memory for slots"]
    assert (finding["status"], finding["remedy"]) == (
        "fail",
        "set fewer workers.slots, or a smaller face.most",
    )
    assert "are free" in finding["told"]


@pytest.mark.parametrize(
    ("limit", "name"), [("max_inotify_instances", "instance"), ("max_inotify_watches", "watch")]
)
def test_the_end_of_inotify_fails_unless_polling(rooms: Rooms, limit: str, name: str) -> None:
    """In a user namespace of its own, whose limit is really 0."""
    shell = f'echo 0 > /proc/sys/user/{limit} && exec "$@"'
    prefix = ["unshare", "--user", "--map-root-user", "sh", "-c", shell, "sh"]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*prefix, "true"], capture_output=True).returncode != 0
    ):
        pytest.skip("no user namespace to be had here")
    finding = examine(*at(rooms), code=1, prefix=prefix)["file events"]
    assert f"no inotify {name} is to be had" in finding["told"]
    assert "watch.polling = true" in finding["remedy"]
    config = rooms.base / "c.toml"
    config.write_text("[watch]\npolling = true\n")
    assert (
        examine("--config", str(config), *at(rooms), code=0, prefix=prefix)["file events"]["status"] == "ok"
    )


def test_a_gpu_that_is_asked_for_and_not_there_fails(rooms: Rooms) -> None:
    if any(Path(node).exists() for node in ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")):
        pytest.skip("there is a GPU here")
    config = rooms.base / "c.toml"
    config.write_text("[model]\ndevice = 'cuda'\n")
    findings = examine("--config", str(config), *at(rooms), "--torch", code=1)
    assert findings["GPU driver"]["status"] == findings["PyTorch"]["status"] == "fail"
    assert "0 GPUs" in findings["PyTorch"]["told"]
    config.write_text("[model]\ndevice = 'cpu'\n")
    assert examine("--config", str(config), *at(rooms), code=0)["GPU driver"]["status"] == "ok"


def with_a_gpus_device_file(*others: str) -> list[str]:
    """A command's beginning, in a mount namespace of its own."""
    files = " ".join(("/dev/nvidiactl", "/dev/null", *others))
    shell = f'mount -t tmpfs none /dev && touch {files} && mkdir /dev/shm && exec "$@"'
    prefix = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", shell, "sh"]
    if subprocess.run([*prefix, "true"], capture_output=True).returncode != 0:
        pytest.skip("no mount namespace to be had here")
    return prefix


def test_no_limit_of_addresses_is_enough_for_a_gpu(rooms: Rooms) -> None:
    limits = (64 * 2**30, resource.getrlimit(resource.RLIMIT_AS)[1])
    prefix = with_a_gpus_device_file()
    config = rooms.base / "c.toml"
    for device, status in (("auto", "warning"), ("cpu", "ok")):
        config.write_text(f"[model]\ndevice = '{device}'\n")
        findings = examine(
            *("--config", str(config), *at(rooms)),
            prefix=prefix,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, limits),
        )
        assert findings["address space"]["status"] == status
    assert "64.0 GiB" in findings["address space"]["told"]


@pytest.mark.parametrize(("device", "gpus"), [("auto", 8), ("cuda", 8), ("cuda:3", 1), ("cpu", 0)])
def test_slots_are_those_that_the_gpus_here_will_have(rooms: Rooms, device: str, gpus: int) -> None:
    prefix = with_a_gpus_device_file(*(f"/dev/nvidia{number}" for number in range(8)))
    config = rooms.base / "c.toml"
    config.write_text(f"[model]\ndevice = '{device}'\n")
    told = examine("--config", str(config), *at(rooms), prefix=prefix)["memory for slots"]["told"]
    slots = int(told.split()[0])
    others = 2 * max(2, usable_cores())
    assert slots == gpus * GPU_HELD * GPU_BATCH + others if gpus else slots < GPU_BATCH * GPU_HELD


NVIDIA_SMI = """#!/bin/sh
test "$*" = "--query-gpu=name,driver_version,memory.total --format=csv,noheader" || exit 2
"""


@pytest.mark.parametrize(
    ("script", "device", "status", "told", "remedy"),
    [
        (
            "echo 'NVIDIA H100 80GB HBM3, 550.54.15, 81559 MiB'; echo 'NVIDIA L4, 550.54.15, 23034 MiB'",
            "auto",
            "ok",
            "NVIDIA H100 80GB HBM3, 550.54.15, 81559 MiB; NVIDIA L4, 550.54.15, 23034 MiB",
            "",
        ),
        (
            "echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18",
            "cuda",
            "fail",
            "nvidia-smi fails: Failed to initialize NVML: Driver/library version mismatch",
            "reboot after an update",
        ),
        ("exit 9", "auto", "warning", "nvidia-smi fails: exit code 9", "install the driver again"),
        ("", "auto", "warning", "no nvidia-smi to ask", "maskdrop doctor --torch"),
    ],
)
def test_the_driver_is_asked_by_nvidia_smi(
    rooms: Rooms, script: str, device: str, status: str, told: str, remedy: str
) -> None:
    """Without a GPU there is no other way: a device file of its name in a mount namespace of this test's own,
    and first in PATH a program that prints what NVIDIA's documentation shows of the real one."""
    programs = rooms.base / "bin"
    programs.mkdir()
    if script:
        (programs / "nvidia-smi").write_text(NVIDIA_SMI + script)
        (programs / "nvidia-smi").chmod(0o755)
    elif shutil.which("nvidia-smi"):
        pytest.skip("there is a real nvidia-smi here")
    prefix = with_a_gpus_device_file()
    config = rooms.base / "c.toml"
    config.write_text(f"[model]\ndevice = '{device}'\n")
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
    found = examine("--config", str(config), *at(rooms), prefix=prefix, env=environment)["GPU driver"]
    assert found["status"] == status
    assert found["told"].endswith(told)
    assert remedy in found["remedy"]


def test_the_doctor_does_without_torch() -> None:
    program = (
        "import sys; from maskdrop.commands.doctor import _examine; _examine(None, None, None, False); "
        "print('torch' in sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout == "False\n"


def test_without_proc_it_says_that_alone_and_the_daemon_refuses_to_start(rooms: Rooms) -> None:
    shell = 'mount -t tmpfs none /proc && exec "$@"'
    prefix = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", shell, "sh"]
    if subprocess.run([*prefix, "true"], capture_output=True).returncode != 0:
        pytest.skip("no mount namespace to be had here")
    findings = examine(*at(rooms), prefix=prefix, code=1)
    assert list(findings) == ["configuration", "/proc"]
    assert "mount -t proc" in findings["/proc"]["remedy"]
    done = maskdrop(["run", *at(rooms)], prefix)
    assert done.returncode == 78
    assert "/proc is not mounted" in done.stderr
