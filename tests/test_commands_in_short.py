"""Documented commands that take long or install something, run with less to do: `make documented`."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from documented_elsewhere import commands_for
from reader import Reader
from weights_for_tests import EMBEDDED

LESS = {
    "bench/backlog.py": "--counts 100 --results 4",
    "bench/batch.py": "--pictures 6 --repeats 1 --entries 40 --no-write",
    "bench/check.py": "--repeats 1 --many 100",
    "bench/cluster.py": "--pictures 32 --side 512 --repeats 1 --no-write",
    "bench/locate.py": "--pictures 2 --repeats 1",
    "bench/run.py": "--pictures 6 --repeats 1",
    "bench/topology.py": "--pictures 12 --workers 1 --repeats 1 --no-write",
    "bench/stage_costs.py": "--sides 512 --turns 1 --count 4",
    "bench/tries.py": "decode",
    "bench/tries_beside.py": "messages",
    "bench/tries_gpu.py": "--device cpu --batches 1 2 --turns 1 --precision fp32 --beside --jpegs 0",
    "tools/train.py": "--stages 64x1 --batch 4 --measure-every 1",
}
"""What is said to each besides; of an option that comes twice, the last counts."""

PATIENCE_S = 600.0
FACES = 8


@pytest.fixture
def reader(tmp_path: Path, faces: list[Path]) -> Iterator[Reader]:
    """Somebody who has a few photographs, and the embedded weights under all names that pages use."""
    if not faces:
        pytest.skip("no photographs of faces: set MASKDROP_FACES to a folder with images/ and labels/")
    reader = Reader(tmp_path)
    some = reader.home / "faces"
    for kind in ("images", "labels"):
        (some / kind).mkdir(parents=True)
        for path in sorted((faces[0].parent.parent / kind).iterdir())[:FACES]:
            shutil.copyfile(path, some / kind / path.name)
    for name in ("first", "second"):
        shutil.copyfile(EMBEDDED, reader.home / f"{name}.safetensors")
    yield reader
    reader.close()


@pytest.mark.long
@pytest.mark.timeout(PATIENCE_S)
@pytest.mark.parametrize("text", commands_for("test_what_takes_long_does_what_it_says"))
def test_what_takes_long_does_what_it_says(text: str, reader: Reader) -> None:
    command, _, target = text.partition(" > ")
    less = LESS[command.split()[1]]
    for name, here in (("FACES", "faces"), ("PICTURES", "faces/images"), ("../shared/faces", "faces")):
        command = command.replace(name, here)
    done = subprocess.run(
        ["bash", "-c", f"{command} {less} {f'> {target}' if target else ''}"],
        cwd=reader.home,
        env={**reader.environment, "MASKDROP_FACES": str(reader.home / "faces")},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
    assert "Traceback" not in done.stderr
    assert done.stdout or (reader.home / target).stat().st_size


@pytest.mark.parametrize("text", commands_for("test_extras_are_there_to_be_installed"))
def test_extras_are_there_to_be_installed(text: str) -> None:
    """As documented, but that pip only says what it would do, and asks no index: everything is there."""
    told = {"PIP_DRY_RUN": "1", "PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, **told, "PATH": path}
    done = subprocess.run(["bash", "-c", text], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "does not provide the extra" not in done.stderr
    assert "Requirement already satisfied: ray" in done.stdout
    assert "Would install" not in done.stdout


@pytest.mark.parametrize("text", commands_for("test_debian_has_what_is_to_be_installed"))
def test_debian_has_what_is_to_be_installed(text: str, tmp_path: Path) -> None:
    """As documented, but that apt only says what it would do, and needs no rights for that."""
    if shutil.which("apt-get") is None or not list(Path("/var/lib/apt/lists").glob("*_Packages*")):
        pytest.skip("no lists of packages here: apt-get update")
    only_say = tmp_path / "apt.conf"
    only_say.write_text('APT::Get::Simulate "true";\n')
    environment = {**os.environ, "APT_CONFIG": str(only_say), "LC_ALL": "C"}
    command = text.removeprefix("sudo ")
    done = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    wanted = command.removeprefix("apt-get install ").split()
    for name in wanted:
        assert f"{name} is already the newest version" in done.stdout or f"Inst {name} " in done.stdout, name
