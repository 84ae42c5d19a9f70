"""The rooms and their doors: who imports whom, read from the source and from running interpreters."""

import ast
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest

from running import nursery
from waiting import wait_for

ROOT = Path(__file__).parent.parent / "daemon"
PACKAGE = ROOT / "maskdrop"


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in PACKAGE.rglob("*.py")}
COMMANDS = {name for name in MODULES if name.startswith("maskdrop.commands.")}


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in MODULES else node.module


def inner(name: str) -> set[str]:
    return {module for module in imported(MODULES[name]) if module in MODULES}


def test_imports_run_one_way() -> None:
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, "a circle: " + " -> ".join((*path, name))
        if name not in done:
            for other in inner(name):
                visit(other, (*path, name))
            done.add(name)

    for name in MODULES:
        visit(name, ())


def test_rooms_are_in_no_circle_either() -> None:
    """A room is a package, or a module beside the packages."""
    beyond: dict[str, set[str]] = {}
    for name in MODULES:
        rooms = beyond.setdefault(room_of(name), set())
        rooms |= {room_of(other) for other in inner(name)} - {room_of(name)}
    for _ in beyond:  # those without which others import nothing more are not in one
        beyond = {room: others & beyond.keys() for room, others in beyond.items() if others & beyond.keys()}
    assert beyond == {}


def room_of(module: str) -> str:
    return ".".join(module.split(".")[:2])


def reachable(name: str) -> set[str]:
    found: set[str] = set()
    left = [name]
    while left:
        module = left.pop()
        if module not in found:
            found.add(module)
            left += inner(module)
    return found


@pytest.mark.parametrize("stage", ["preprocess", "infer", "save", "topology.worker"])
def test_workers_never_import_the_supervisor(stage: str) -> None:
    forbidden = ("maskdrop.supervisor", "maskdrop.daemon", "maskdrop.commands", "maskdrop.inbox.watch")
    assert not [module for module in reachable(f"maskdrop.{stage}") if module.startswith(forbidden)]


@pytest.mark.parametrize(
    ("library", "owners"),
    [
        ("watchdog", {"maskdrop.inbox.watch"}),
        ("torchvision", {"maskdrop.model.torchvision_resnet"}),
        ("safetensors", {"maskdrop.model.weights"}),
        ("systemd", {"maskdrop.systemd"}),
        ("onnxruntime", {"maskdrop.model.onnx_network"}),
        (
            "rich",
            {
                "maskdrop.health.status",
                "maskdrop.health.top",
                "maskdrop.health.frame",
                "maskdrop.check.report",
                *COMMANDS,
            },
        ),
        ("prometheus_client", {"maskdrop.health.metrics"}),
        ("ray", {"maskdrop.cluster.engine"}),
        ("pyarrow", {name for name in MODULES if name.startswith("maskdrop.cluster.")}),
        ("typer", {"maskdrop.commands.app", "maskdrop.commands.exits", "maskdrop.__main__", *COMMANDS}),
    ],
)
def test_each_library_is_known_to_one_room(library: str, owners: set[str]) -> None:
    users = {name for name, path in MODULES.items() for m in imported(path) if m.split(".")[0] == library}
    assert users <= owners
    assert users or not owners


def test_files_are_small() -> None:
    long = {name: n for name, p in MODULES.items() if (n := len(p.read_text().splitlines())) > 350}
    assert not long


def loaded_by(modules: Sequence[str], libraries: Sequence[str]) -> list[str]:
    """Which of these libraries an interpreter has once it has imported these modules of maskdrop."""
    imports = ", ".join(f"maskdrop.{module}" for module in modules)
    program = f"import sys, {imports}; print(*(name for name in {list(libraries)} if name in sys.modules))"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return answer.stdout.split()


def test_decoding_and_saving_do_without_torch() -> None:
    assert loaded_by(["topology.worker", "preprocess", "save"], ["torch"]) == []


def test_a_clusters_tasks_do_without_torch() -> None:
    """What they unpickle brings the engine with it."""
    pytest.importorskip("ray")
    modules = ["cluster.decoding", "cluster.finishing", "cluster.engine"]
    assert loaded_by(modules, ["torch", "ray"]) == ["ray"]


def test_only_a_daemon_with_metrics_loads_their_library() -> None:
    modules = ["daemon", "infer", "preprocess", "save", "health.status", "health.top"]
    assert loaded_by(modules, ["prometheus_client", "torch"]) == ["torch"]


def test_labelling_does_without_torchs_compiler_and_leaves_torchvision_as_it_was() -> None:
    program = (
        "import sys, maskdrop.infer; print(any(n.split('.')[0] in ('sympy', 'torchvision') "
        "or n == 'torch._dynamo' for n in sys.modules))"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout == "False\n"


def test_what_was_imported_for_good_is_not_looked_through_again() -> None:
    program = (
        "import gc\n"
        "from maskdrop.lasting import lasting_imports\n"
        "try:\n"
        "    with lasting_imports():\n"
        "        import numpy, no_such_module\n"
        "except ImportError:\n"
        "    print(gc.isenabled(), gc.get_freeze_count() > 10_000, len(gc.get_objects()) < 1_000)\n"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout == "True True True\n"


def test_what_daemons_of_tests_are_forked_from_has_torch_imported() -> None:
    """Nothing else would show that each of them imports it again."""
    parent = psutil.Process(nursery().pid)
    wait_for(lambda: any("libtorch" in part.path for part in parent.memory_maps()), "PyTorch's libraries")


def test_only_the_spawn_context_is_used() -> None:
    for path in MODULES.values():
        source = path.read_text()
        assert "get_context(" not in source or 'get_context("spawn")' in source, path
        assert "set_start_method" not in source, path
        assert "os.fork(" not in source, path


def test_cuda_is_touched_in_the_model_alone() -> None:
    users = {name for name, path in MODULES.items() if "torch.cuda" in path.read_text()}
    model = {f"maskdrop.model.{name}" for name in ("memory", "pinned", "precision", "streams")}
    assert users <= model | {"maskdrop.devices"}
    # That mention is a program text for another process.
    program = "import torch; torch.cuda.init(); print(torch._C._cuda_getDeviceCount())"
    assert program in MODULES["maskdrop.devices"].read_text()
