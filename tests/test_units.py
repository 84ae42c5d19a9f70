"""The unit files: as closed as promised, correct to systemd, and each switch left open for a true reason."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from maskdrop.commands.exits import EX_CONFIG
from maskdrop.config import DrainSettings
from maskdrop.service.layout import wanted_files

ROOT = Path(__file__).parent.parent
SYSTEMD = ROOT / "systemd"
UNITS = ("maskdrop.service", "maskdrop@.service")
DROP_INS = sorted(path.name for path in (SYSTEMD / "drop-ins").iterdir())
GPU = ("gpu-amd.conf", "gpu-nvidia.conf")

needs_systemd_analyze = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="no systemd-analyze here: apt-get install systemd"
)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may drop to another user")


def read(unit: str) -> dict[str, list[str]]:
    """All values of each key, in the order of the file."""
    lines = (SYSTEMD / unit).read_text().splitlines()
    pairs = [line.partition("=") for line in lines if "=" in line and not line.startswith("#")]
    return {key: [value for name, _, value in pairs if name == key] for key, _, _ in pairs}


def lay_out(folder: Path, unit: str, drop_in: str | None) -> None:
    """A unit folder as an administrator has it."""
    folder.mkdir(parents=True)
    shutil.copy(SYSTEMD / unit, folder)
    if drop_in:
        (folder / f"{unit}.d").mkdir()
        shutil.copy(SYSTEMD / "drop-ins" / drop_in, folder / f"{unit}.d")


def exposure(root: Path, unit: str, drop_in: str | None) -> tuple[float, set[str]]:
    """systemd-analyze's exposure of a unit, 0 to 10, and the names of the switches that it finds open."""
    lay_out(root / "etc" / "systemd" / "system", unit, drop_in)
    command = ["systemd-analyze", "security", "--offline=true", f"--root={root}", "--no-pager", unit]
    drawn = {**os.environ, "LC_ALL": "C.UTF-8"}
    answer = subprocess.run(command, capture_output=True, text=True, check=True, env=drawn)
    level = re.search(r"Overall exposure level for \S+: ([0-9.]+)", answer.stdout)
    assert level, answer.stdout
    marked = [line.split() for line in answer.stdout.splitlines() if line.startswith("✗")]
    return float(level[1]), {words[1] for words in marked}


@needs_systemd_analyze
@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize(("drop_in", "most"), [(None, 1.0), *((name, 2.0) for name in GPU)])
def test_exposure_is_as_low_as_promised(tmp_path: Path, unit: str, drop_in: str | None, most: float) -> None:
    level, open_switches = exposure(tmp_path, unit, drop_in)
    assert level <= most
    assert ("PrivateDevices=" in open_switches) == (drop_in in GPU)


@needs_systemd_analyze
@pytest.mark.parametrize("drop_in", [None, *DROP_INS])
def test_every_open_switch_has_its_reason_in_the_documents(tmp_path: Path, drop_in: str | None) -> None:
    _, open_switches = exposure(tmp_path, "maskdrop.service", drop_in)
    document = (ROOT / "docs" / "service.md").read_text().replace("\\|", "|")
    assert open_switches
    assert not [name for name in open_switches if f"`{name.rstrip('=')}`" not in document]


@needs_systemd_analyze
@pytest.mark.parametrize("drop_in", [None, *DROP_INS])
@pytest.mark.parametrize("unit", UNITS)
def test_systemd_finds_nothing_wrong(tmp_path: Path, unit: str, drop_in: str | None) -> None:
    folder = tmp_path / "units"
    lay_out(folder, unit, drop_in)
    with tempfile.TemporaryDirectory(dir="/tmp") as plain:  # a unit can't name a path with blanks in it
        program = Path(plain, "bin", "maskdrop")
        program.parent.mkdir()
        program.touch(0o755)
        for file in wanted_files(Path(plain), []):
            if file.target.name == unit:
                (folder / unit).write_bytes(file.content)
        environment = {**os.environ, "SYSTEMD_UNIT_PATH": f"{folder}:"}
        command = ["systemd-analyze", "verify", "--man=no", unit]
        answer = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert (answer.returncode, answer.stderr + answer.stdout) == (0, "")


def test_the_two_forms_differ_in_nothing_but_the_instance() -> None:
    single = (SYSTEMD / "maskdrop.service").read_text()
    instance = (SYSTEMD / "maskdrop@.service").read_text()
    assert instance.count("%i") == 9
    assert instance.replace("maskdrop/%i", "maskdrop").replace(" (%i)", "") == single


def test_the_unit_agrees_with_the_daemon() -> None:
    unit = read("maskdrop.service")
    assert unit["Type"] == ["notify"]
    assert int(unit["TimeoutStopSec"][0]) > DrainSettings().drain_timeout_s
    assert unit["RestartPreventExitStatus"] == [str(EX_CONFIG)]
    assert unit["KillMode"] == ["mixed"]
    assert unit["OOMPolicy"] == ["continue"]


def test_reload_sends_hang_up_to_the_main_process() -> None:
    program = (
        "import signal, sys; signal.signal(1, lambda *_: sys.exit(7)); print(flush=True); signal.pause()"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as waiting:
        assert waiting.stdout is not None
        waiting.stdout.readline()
        (line,) = read("maskdrop.service")["ExecReload"]
        shell, option, quoted = line.split(" ", 2)
        script = quoted.strip("'").replace("$$", "$")  # what systemd makes of it
        subprocess.run([shell, option, script], check=True, env={"MAINPID": str(waiting.pid)})
        assert waiting.wait() == 7


ONEDNN = """
import ctypes, sys
import torch
PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN = 65, 1
torch.nn.functional.conv2d(torch.rand(1, 32, 128, 128), torch.rand(64, 32, 3, 3))
print("allowed")
if ctypes.CDLL(None).prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0):
    sys.exit("unknown to this kernel")
torch.nn.functional.conv2d(torch.rand(1, 64, 96, 96), torch.rand(96, 64, 3, 3))
"""


def test_torch_still_compiles_while_it_runs() -> None:
    """If this fails, MemoryDenyWriteExecute can be closed."""
    answer = subprocess.run([sys.executable, "-c", ONEDNN], capture_output=True, text=True, check=False)
    assert answer.stdout == "allowed\n", answer.stderr
    if "unknown to this kernel" in answer.stderr:
        pytest.skip("the kernel has no PR_SET_MDWE (Linux 6.3)")
    assert "could not create a primitive" in answer.stderr


LEASE = """
import ctypes, os, sys
from maskdrop.inbox.writers import writers_at
libc, capabilities = ctypes.CDLL(None), int(sys.argv[2])
PR_SET_KEEPCAPS, LINUX_CAPABILITY_VERSION_3 = 8, 0x20080522
assert libc.prctl(PR_SET_KEEPCAPS, 1) == 0
os.setresuid(12345, 12345, 12345)
header = (ctypes.c_uint32 * 2)(LINUX_CAPABILITY_VERSION_3, 0)
assert libc.capset(header, (ctypes.c_uint32 * 6)(capabilities, capabilities)) == 0
print(writers_at(os.open(sys.argv[1], os.O_RDONLY), "picture.jpg").value)
"""


@needs_root
@pytest.mark.parametrize(("capabilities", "told"), [(0, "unknown"), (1 << 28, "some")])
def test_another_users_writer_is_seen_with_cap_lease_alone(capabilities: int, told: str) -> None:
    assert read("maskdrop.service")["AmbientCapabilities"] == ["CAP_LEASE"]
    with tempfile.TemporaryDirectory() as inbox, (Path(inbox) / "picture.jpg").open("wb"):
        Path(inbox).chmod(0o755)
        (Path(inbox) / "picture.jpg").chmod(0o644)
        command = [sys.executable, "-c", LEASE, inbox, str(capabilities)]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (answer.stdout.strip(), answer.stderr) == (told, "")
