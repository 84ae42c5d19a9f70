"""People's own networks: every kind of file, through the real daemon; wrong ones found at the start."""

import contextlib
import hashlib
import io
import json
import os
import pickle
import random
import re
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

from drawing import draw_face, encode
from maskdrop.config import ModelSettings
from maskdrop.model.embedded import embedded_weights
from maskdrop.model.errors import WeightsError
from maskdrop.model.export import ENDINGS, export_network
from maskdrop.model.install import SERVICE_STATE, default_state_folder, install_file
from maskdrop.model.known import known_labels, known_picture
from maskdrop.model.load import Form, load_network
from maskdrop.model.parser import load_parser
from maskdrop.model.program import is_plain_expression
from public_checkpoint import public_checkpoint
from running import FULL, Daemon, Rooms, maskdrop
from torchvision_for_tests import make_importable
from weights_for_tests import skip_without_programs

Start = Callable[..., Daemon]

VOC = tuple(f"class_{index}" for index in range(21))


class Plain(nn.Module):
    """A network of one layer: scores a class and pixel, or whatever a test wants it to answer."""

    def __init__(self, classes: int = 3, answer: str = "scores") -> None:
        super().__init__()
        torch.manual_seed(5)
        self.layer = nn.Conv2d(3, classes, 3, padding=1)
        self.answer = answer

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        scores: Tensor = self.layer(x)
        match self.answer:
            case "nan":
                return scores * float("nan")
            case "small":
                return scores[:, :, ::8, ::8]
            case "flat":
                return scores.flatten(1)
            case "several":
                return scores, scores[:, :, ::2, ::2]
        return scores


def save_program(network: nn.Module, path: Path, side: int = 64, batch: int | None = None) -> Path:
    """Export a network as its owner would, for any batch size or for a fixed one."""
    skip_without_programs()
    sample = (torch.zeros(batch or 2, 3, side, side),)
    free = {0: torch.export.Dim("batch", min=1, max=64)} if batch is None else None
    program = torch.export.export(network.eval(), sample, dynamic_shapes=(free,))
    torch.export.save(program, path)
    return path


def settings_for(path: Path, classes: int = 3, side: int = 64) -> ModelSettings:
    return ModelSettings(weights=path, classes=tuple(f"c{i}" for i in range(classes)), input_size=side)


def settle_batch_norms(network: nn.Module, batch: Tensor) -> None:
    """Let random weights see something once: otherwise their answers are the same everywhere."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # a plain mean over what was seen
    with torch.no_grad():
        network.train()(batch)
    network.eval()


# Through the daemon.


@pytest.mark.parametrize("form", ["program", "onnx"])
def test_lraspp_of_torchvision_through_the_whole_daemon(start: Start, rooms: Rooms, form: str) -> None:
    make_importable()
    from torchvision.models.segmentation import lraspp_mobilenet_v3_large

    torch.manual_seed(3)
    network = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=21)
    side = 224
    settle_batch_norms(network, torch.rand(4, 3, side, side) * 4 - 2)
    path = rooms.base / ("lraspp.pt2" if form == "program" else "lraspp.onnx")
    if form == "program":
        save_program(network, path, side)
    else:
        pytest.importorskip("onnxruntime", reason="needs maskdrop[onnx]")
        program = torch.export.load(save_program(network, rooms.base / "p.pt2", side))
        written = torch.onnx.export(program, dynamo=True, verbose=False)
        assert written is not None
        written.save(path)
    picture = draw_face(1, 300, 260)
    pixels = np.asarray(picture.resize((side, side), Image.Resampling.BILINEAR))
    with torch.inference_mode():
        tensor = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None] / 255
        scores = network((tensor - 0.5) / 0.25)["out"][0].numpy()
    expected = scores.argmax(0)
    assert len(np.unique(expected)) > 1
    label = int(np.bincount(expected.ravel()).argmax())

    settings = FULL + (
        f"[model]\nclasses = {json.dumps(VOC)}\ninput_size = {side}\nprecision = 'fp32'\n"
        "mean = [0.5, 0.5, 0.5]\ndeviation = [0.25, 0.25, 0.25]\n"
        f"[save]\noutputs = ['model', 'labels']\nformat = 'png'\nkeep = ['{VOC[label]}']\n"
    )
    daemon = start("--weights", str(path), settings=settings).wait_ready()
    rooms.drop("p.png", encode(picture, "PNG"))
    daemon.wait_count("saved", 1)
    assert daemon.stop() == 0
    with Image.open(rooms.outbox / "p.model.png") as image:
        masked = np.asarray(image)
    best = np.sort(scores, axis=0)[-2:]
    clear = best[1] - best[0] > 1e-3  # elsewhere the order of sums decides
    assert clear.mean() > 0.95
    wanted = pixels * (expected == label)[:, :, None]
    assert np.array_equal(masked[clear], wanted[clear])
    with Image.open(rooms.outbox / "p.labels.png") as image:
        assert image.mode == "P"
        assert image.size == (300, 260)
        assert (image.getpalette() or [])[:6] == [0, 0, 0, 128, 0, 0]  # PASCAL VOC's colours


@pytest.mark.parametrize(
    ("answer", "classes", "said"),
    [
        ("nan", 3, "answers NaN or infinity"),
        ("scores", 4, "answers 3 classes, but model.classes names 4"),
        ("small", 3, "answers (1, 3, 8, 8), not (1, 3, 64, 64)"),
    ],
)
def test_a_network_of_no_use_is_found_at_the_start(
    start: Start, rooms: Rooms, answer: str, classes: int, said: str
) -> None:
    path = save_program(Plain(answer=answer), rooms.base / "net.pt2")
    names = [f"c{i}" for i in range(classes)]
    settings = FULL + f"[model]\nclasses = {json.dumps(names)}\ninput_size = 64\n[save]\nkeep = ['c1']\n"
    rooms.drop("a.png", encode(draw_face(1), "PNG"))
    daemon = start("--weights", str(path), settings=settings)
    assert daemon.wait_end() == 78
    (line,) = [line for line in daemon.log.splitlines() if " ERROR " in line]
    assert f"{path}: {said}" in line
    assert "; " in line
    assert daemon.health()["counts"]["accepted"] <= 1
    assert rooms.pictures("inbox") == ["a.png"]


# Kinds of file.


@pytest.mark.parametrize("prefix", ["", "module.", "net."])
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
def test_checkpoints_with_prefixes_and_wrappers(tmp_path: Path, prefix: str, wrapper: str | None) -> None:
    tensors = public_checkpoint()
    named = {prefix + name: tensor for name, tensor in tensors.items()}
    path = tmp_path / "checkpoint.pth"
    torch.save(named if wrapper is None else {wrapper: named, "epoch": 7}, path)
    loaded = load_network(path)
    assert loaded.form is Form.BISENET
    for name, tensor in loaded.network.state_dict().items():
        assert torch.equal(tensor, tensors[name]), name


@pytest.mark.parametrize("batch", [None, 1, 4])
def test_a_program_takes_batches_of_any_size(tmp_path: Path, batch: int | None) -> None:
    """Also one exported for a fixed batch size: larger batches are cut, smaller ones filled up."""
    network = Plain()
    parser = load_parser(settings_for(save_program(network, tmp_path / "n.pt2", batch=batch)), "cpu")
    parser.probe()
    pictures = np.random.default_rng(2).integers(0, 256, (6, 64, 64, 3), dtype=np.uint8)
    together = parser.parse(pictures)
    assert together.shape == (6, 64, 64)
    alone = np.concatenate([parser.parse(pictures[i : i + 1]) for i in range(6)])
    assert (together == alone).mean() > 0.999
    assert len(np.unique(together)) == 3


@pytest.mark.parametrize("ending", [".onnx", ".pt2", ".safetensors"])
def test_what_is_exported_gives_the_same_labels(tmp_path: Path, tiny_weights: Path, ending: str) -> None:
    if ending != ".safetensors":
        skip_without_programs()
    if ending == ".onnx":
        pytest.importorskip("onnxruntime", reason="needs maskdrop[onnx]")
        pytest.importorskip("onnxscript", reason="needs maskdrop[onnx]")
    target = tmp_path / f"out{ending}"
    export_network(load_network(tiny_weights), 128, target)
    pictures = np.stack([np.asarray(draw_face(seed, 128, 128)) for seed in range(3)])
    settings = ModelSettings(weights=tiny_weights, input_size=128, precision="fp32")
    before = load_parser(settings, "cpu").parse(pictures)
    after = load_parser(settings.model_copy(update={"weights": target}), "cpu")
    after.probe()
    assert (after.parse(pictures) == before).mean() > 0.999
    assert len(np.unique(before)) > 3


class Constants(Plain):
    """One that holds a number as a constant, and has a device written into it."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = torch.full((3, 1, 1), 0.5)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.layer(x + self.shift)
        return scores + torch.arange(3, dtype=x.dtype).view(3, 1, 1)


def test_a_program_goes_to_its_device_with_all_that_it_holds(tmp_path: Path) -> None:
    """A device without memory stands in for a GPU."""
    path = save_program(Constants(), tmp_path / "n.pt2")
    x = torch.zeros(2, 3, 64, 64)
    assert load_network(path, "cpu").network(x).device.type == "cpu"
    network = load_network(path, "meta").network
    constants = [value for value in vars(network).values() if isinstance(value, Tensor)]
    tensors = [*network.parameters(), *network.buffers(), *constants]
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert network(x.to("meta")).device.type == "meta"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_program_labels_alike_on_a_gpu(tmp_path: Path) -> None:
    path = save_program(Constants(), tmp_path / "n.pt2")
    pictures = np.random.default_rng(2).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    here, there = (load_parser(settings_for(path), device).parse(pictures) for device in ("cpu", "cuda"))
    assert (here == there).mean() > 0.99


def test_of_several_answers_the_first_is_taken(tmp_path: Path) -> None:
    path = save_program(Plain(answer="several"), tmp_path / "n.pt2")
    load_parser(settings_for(path), "cpu").probe()


def test_a_program_of_an_older_pytorch_is_named(tmp_path: Path) -> None:
    path = tmp_path / "n.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("version", "1.1")
        archive.writestr("serialized_exported_program.json", "{}")
    with pytest.raises(WeightsError, match=r"n\.pt2: .*PyTorch.* 2\.8"):
        load_parser(settings_for(path), "cpu")


def test_a_program_for_pictures_of_another_size_is_named(tmp_path: Path) -> None:
    path = save_program(Plain(), tmp_path / "n.pt2", side=96)
    with pytest.raises(
        WeightsError, match=r"takes pictures of 96 x 96, not 64 x 64; set model\.input_size = 96"
    ):
        load_parser(settings_for(path), "cpu").probe()


def test_scores_in_another_form_are_named(tmp_path: Path) -> None:
    path = save_program(Plain(answer="flat"), tmp_path / "n.pt2")
    with pytest.raises(WeightsError, match=r"answers \(1, 12288\), not \(1, 3, 64, 64\)"):
        load_parser(settings_for(path), "cpu").probe()


def test_weights_that_name_other_classes_than_configured_are_refused() -> None:
    with pytest.raises(WeightsError, match=r"its classes are background, skin, .*; set model\.classes"):
        load_parser(ModelSettings(classes=("background", "cat")), "cpu")


@pytest.mark.parametrize("name", ["a.onnx", "a.pt2", "a.pth"])
@pytest.mark.parametrize("content", [b"", b"\0" * 64, b"PK\x03\x04" + bytes(60), b"\x08\x07\x12\x04junk"])
def test_damaged_files_are_refused_with_one_line(tmp_path: Path, name: str, content: bytes) -> None:
    if name.endswith(".onnx"):
        pytest.importorskip("onnxruntime", reason="needs maskdrop[onnx]")
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(WeightsError) as caught:
        load_network(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "; " in message
    assert "\n" not in message


# Nothing that could run code.


class Hostile:
    """Runs a command wherever it is unpickled by a careless program."""

    def __init__(self, victim: Path) -> None:
        self._victim = victim

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch '{self._victim}'",)


def altered(source: Path, target: Path, change: Callable[[str, bytes], bytes | None], **more: bytes) -> Path:
    """A copy of an archive with some files changed, left out (None) or added, as torch would read it."""
    with zipfile.ZipFile(source) as before, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as after:
        root = before.namelist()[0].split("/")[0]
        for name in before.namelist():
            content = change(name, before.read(name))
            if content is not None:
                after.writestr(name, content)
        for name, content in more.items():
            after.writestr(f"{root}/{name}", content)
    return target


def in_model(replace: str, by: str) -> Callable[[str, bytes], bytes]:
    def change(name: str, content: bytes) -> bytes:
        if not name.endswith("models/model.json"):
            return content
        text = content.decode()
        assert replace in text
        return text.replace(replace, by).encode()

    return change


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_program(Plain(), tmp_path_factory.mktemp("program") / "net.pt2")


def test_hostile_pickles_in_a_program_run_nothing(tmp_path: Path, program: Path) -> None:
    victim = tmp_path / "victim"
    zipped = io.BytesIO()
    torch.save(Hostile(victim), zipped)

    def poison(name: str, content: bytes) -> bytes:
        return zipped.getvalue() if name.endswith("sample_inputs/model.pt") else content

    path = altered(program, tmp_path / "bad.pt2", poison)
    with pytest.raises(WeightsError, match="refused, for it holds a pickle of more than tensors"):
        load_network(path)
    assert not victim.exists()
    # The danger is real: torch's own loader runs it.
    with pytest.raises(Exception):  # noqa: B017, PT011 - whatever it fails with after having run it
        torch.export.load(path)
    assert victim.exists()


@pytest.mark.parametrize("kind", ["weights", "constants"])
@pytest.mark.parametrize("protocol", [2, 4])
def test_weights_that_are_to_be_unpickled_are_refused(
    tmp_path: Path, program: Path, kind: str, protocol: int
) -> None:
    """Each entry says whether torch's loader is to unpickle it, which it does without any care."""
    victim = tmp_path / "victim"
    hostile = pickle.dumps(Hostile(victim), protocol)
    prefix = {"weights": "weight_0", "constants": "tensor_0"}[kind]

    def poison(name: str, content: bytes) -> bytes:
        if name.endswith("weights/weight_0"):
            return hostile if kind == "weights" else content
        if not name.endswith(f"data/{kind}/model_{kind}_config.json"):
            return content
        entries = json.loads(content)
        first = {"path_name": prefix, "is_param": kind == "weights", "use_pickle": True, "tensor_meta": None}
        name_of = next(iter(entries["config"]), "c")
        entries["config"][name_of] = {**entries["config"].get(name_of, {}), **first}
        return json.dumps(entries).encode()

    more = {"data/constants/tensor_0": hostile} if kind == "constants" else {}
    path = altered(program, tmp_path / "bad.pt2", poison, **more)
    with pytest.raises(WeightsError, match="refused, for it has pickles for weights"):
        load_network(path)
    assert not victim.exists()
    with pytest.raises(Exception):  # noqa: B017, PT011 - whatever it fails with after having run it
        torch.export.load(path)
    assert victim.exists()  # the danger is real


def test_files_of_one_name_are_refused(tmp_path: Path, program: Path) -> None:
    """Who reads the first and who reads the last of them reads another file."""
    path = altered(program, tmp_path / "bad.pt2", lambda _, data: data, **{"models/model.json": b"{}"})
    with pytest.raises(WeightsError, match="refused, for it holds two files of one name"):
        load_network(path)


@pytest.mark.parametrize(
    "where", ["data/constants/custom_obj_0", "data/aotinductor/m/x.so", "extra/a", "x.py"]
)
def test_files_that_a_plain_program_lacks_are_refused(tmp_path: Path, program: Path, where: str) -> None:
    content = pickle.dumps(Hostile(tmp_path / "victim"))
    path = altered(program, tmp_path / "bad.pt2", lambda _, data: data, **{where: content})
    with pytest.raises(WeightsError, match="which a plain program doesn't"):
        load_network(path)


@pytest.mark.parametrize(
    ("replace", "by", "said"),
    [
        ("torch.ops.aten.conv2d.default", "torch.hub.load", "calls 'torch.hub.load'"),
        ("torch.ops.aten.conv2d.default", "torch.ops.aten.from_file.default", "calls"),
        ("torch.ops.aten.conv2d.default", "math.__loader__", "calls"),
        ('"guards_code": []', '"guards_code": ["__import__(\'os\').abort()"]', "guards written as code"),
        ("Symbol('s77', positive=True, integer=True)", "__import__('os').abort()", "no plain arithmetic"),
    ],
)
def test_code_in_a_program_is_refused(
    tmp_path: Path, program: Path, replace: str, by: str, said: str
) -> None:
    with zipfile.ZipFile(program) as archive:
        (name,) = [n for n in archive.namelist() if n.endswith("models/model.json")]
        text = archive.read(name).decode()
    if replace.startswith("Symbol"):  # its number differs between versions of torch
        start = text.index("Symbol('")
        replace = text[start : text.index(")", start) + 1]
    path = altered(program, tmp_path / "bad.pt2", in_model(replace, by))
    with pytest.raises(WeightsError, match="refused, for it ") as caught:
        load_network(path)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("s77", True),
        ("2*s0 - 1", True),
        ("Max(1, s77 - 2)", True),
        ("Add(Symbol('s77', positive=True, integer=True), Integer(-2))", True),
        ("__import__('os').system('true')", False),
        ("exit()", False),
        ("s0.__class__", False),
        ("(lambda: 1)()", False),
        ("Symbol('__import__')", False),
        ("Symbol('s1', x=print(1))", False),
        ("[s0 for s0 in (1,)]", False),
        ("x", False),
        ("'text'", False),
        ("", False),
        (None, False),
    ],
)
def test_plain_expressions(text: object, plain: bool) -> None:
    assert is_plain_expression(text) is plain


@given(st.text(alphabet="s0123456789+-*/()[]{}.,_' aSymbolMaxeval:=", max_size=40))
@example("0_0")
def test_a_plain_expression_has_no_names_but_sizes_and_functions(text: str) -> None:
    if is_plain_expression(text):
        names = {"Max": max, "Min": min, "Mod": divmod, **{f"{c}{n}": 1 for c in "su" for n in range(10)}}
        words = "".join(c if c.isalnum() or c == "_" else " " for c in text).split()
        numbers = {w for w in words if re.fullmatch(r"[0-9]+(_[0-9]+)*", w)}
        assert all(w in numbers or w in names or w[0] in "su" or w == "Symbol" for w in words)


# From the command line.


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return maskdrop(["model", *arguments], env={**os.environ, "COLUMNS": "200"})


def test_show() -> None:
    done = command("show")
    assert done.returncode == 0, done.stderr
    loaded = load_network(embedded_weights())
    count = sum(tensor.numel() for tensor in loaded.network.parameters())
    for part in (
        f"{count:,}",
        f"{loaded.size / 1e6:.2f} MB",
        "float16",
        "necklace",
        "non-commercial",
        loaded.sha256,
    ):
        assert part in done.stdout


def test_check_of_the_embedded_weights_and_of_random_ones(tiny_weights: Path) -> None:
    good = command("check")
    assert good.returncode == 0, good.stderr
    assert "fit for use" in good.stdout
    random = command("check", str(tiny_weights))
    assert random.returncode == 1
    assert "of the known picture's labels are right" in random.stderr
    assert random.stderr.count("\n") == 1


def test_export_and_install(tmp_path: Path) -> None:
    skip_without_programs()
    target, state = tmp_path / "face.pt2", tmp_path / "state"
    done = command("export", str(target))
    assert done.returncode == 0, done.stderr
    done = command("install", str(target), "--state", str(state))
    assert done.returncode == 0, done.stderr
    (installed,) = (state / "weights").iterdir()
    assert f'weights = "{installed}"' in done.stdout
    assert installed.read_bytes() == target.read_bytes()
    assert installed.stat().st_mode & 0o777 == 0o644, "the daemon is another user"
    assert load_network(target).sha256[:12] in installed.name


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_export_that_finds_no_room_is_told_and_leaves_nothing(tmp_path: Path, ending: str) -> None:
    skip_without_programs()
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(small)]).returncode != 0:
        pytest.skip("mounting needs root")
    try:
        done = command("export", str(small / f"face{ending}"))
        left = list(small.iterdir())
    finally:
        subprocess.run(["umount", "--lazy", str(small)], check=True)
    assert done.returncode == 1
    assert done.stderr.startswith(f"maskdrop: {small / f'face{ending}'}: can't be written (")
    assert "; make room, or name another place" in done.stderr
    assert done.stderr.count("\n") == 1
    assert left == []


def test_what_changed_since_it_was_checked_is_not_installed(tmp_path: Path) -> None:
    source = tmp_path / "face.pt2"
    source.write_bytes(b"another network by now")
    with pytest.raises(WeightsError, match=r"face\.pt2: changed while it was checked; try again"):
        install_file(source, hashlib.sha256(b"checked").hexdigest(), tmp_path / "state")
    assert list(tmp_path.iterdir()) == [source]


def test_a_network_goes_where_the_service_or_else_its_user_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", "/home/me/state")
    own = Path("/home/me/state/maskdrop")
    assert default_state_folder() == (SERVICE_STATE if os.geteuid() == 0 else own)
    monkeypatch.setenv("STATE_DIRECTORY", "/srv/first:/srv/second")
    assert default_state_folder() == Path("/srv/first")


def test_what_fails_the_check_is_not_installed(tmp_path: Path, tiny_weights: Path) -> None:
    done = command("install", str(tiny_weights), "--state", str(tmp_path / "state"))
    assert done.returncode == 1
    assert "not installed" in done.stderr
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["show", "/nowhere.pth"], 1, "/nowhere.pth: No such file"),
        (["export", "/tmp/x.docx"], 1, "choose .onnx, .pt2, .safetensors"),
        (["check", "--config", "/nowhere.toml"], 78, "/nowhere.toml"),
        (["check", "--device", "gpu"], 78, "model.device = 'gpu'"),
        (["check", "--device", "cuda:97"], 78, "model.device = 'cuda:97'"),
        (["install", "/nowhere.pth", "--device", "cuda:97"], 78, "model.device = 'cuda:97'"),
        (["export", "/nowhere/x.safetensors"], 1, "/nowhere/x.safetensors: name a file in a folder that is"),
    ],
)
def test_commands_fail_with_one_line(arguments: list[str], code: int, said: str) -> None:
    done = command(*arguments)
    assert done.returncode == code
    assert said in done.stderr
    assert done.stderr.startswith("maskdrop: ")
    assert done.stderr.count("\n") == 1


def test_the_known_labels_are_the_embedded_weights_own() -> None:
    parser = load_parser(ModelSettings(precision="fp32"), "cpu")
    labels = parser.parse(known_picture(512)[np.newaxis])[0]
    # Not all of them: processors sum in different orders.
    assert (labels == known_labels(512)).mean() > 0.999, "run tools/known_picture.py"


def test_pictures_of_later_parts_are_finished_under_their_own_numbers(tmp_path: Path) -> None:
    parser = load_parser(settings_for(save_program(Plain(), tmp_path / "net.pt2")), "cpu", max_batch=2)
    pictures, labels = np.zeros((5, 64, 64, 3), np.uint8), np.empty((5, 64, 64), np.uint8)
    for judge in (False, True):
        begun = parser.begin(list(pictures), list(labels), lambda at, _: at, judge=judge)
        assert begun.results() == [0, 1, 2, 3, 4]


def test_a_damaged_directory_of_an_archive_is_told(tmp_path: Path, program: Path) -> None:
    checkpoint = tmp_path / "net.pth"
    torch.save({"a": torch.zeros(3)}, checkpoint)
    chance, bad = random.Random(1), tmp_path / "bad"
    for good in (program, checkpoint):
        whole = good.read_bytes()
        for _ in range(150):
            damaged = bytearray(whole)
            damaged[chance.randrange(whole.find(b"PK\x01\x02"), len(whole))] = chance.randrange(256)
            path = bad.with_suffix(good.suffix)
            path.write_bytes(damaged)
            with contextlib.suppress(WeightsError):
                load_network(path)


@pytest.mark.parametrize("told", ['{"config": []}', '{"config": null}', "{}"])
def test_weights_that_are_not_listed_as_they_should_be_are_refused(
    tmp_path: Path, program: Path, told: str
) -> None:
    def other(name: str, content: bytes) -> bytes:
        return told.encode() if name.endswith("data/weights/model_weights_config.json") else content

    with pytest.raises(WeightsError):
        load_network(altered(program, tmp_path / "bad.pt2", other))


def test_a_packed_archive_is_refused(tmp_path: Path, program: Path) -> None:
    """Little of it could fill all memory; PyTorch packs none."""
    packed = tmp_path / "packed.pt2"
    with zipfile.ZipFile(program) as whole, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in whole.namelist():
            archive.writestr(name, whole.read(name))
    with pytest.raises(WeightsError, match="refused, for it is packed"):
        load_network(packed)


def test_a_second_program_is_refused(tmp_path: Path) -> None:
    program = save_program(Plain(), tmp_path / "net.pt2")
    with zipfile.ZipFile(program, "a") as archive:
        archive.writestr("other/models/model.json", b"{}")
    with pytest.raises(WeightsError, match="refused, for it holds 2 programs instead of one"):
        load_network(program)


def test_objects_and_entries_from_elsewhere_are_refused(tmp_path: Path, program: Path) -> None:
    custom = in_model(
        '"custom_obj_values": {}', '"custom_obj_values": {"c": {"name": "c", "class_fqn": "x"}}'
    )

    def elsewhere(name: str, content: bytes) -> bytes:
        if not name.endswith("data/weights/model_weights_config.json"):
            return content
        told = json.loads(content)
        next(iter(told["config"].values()))["path_name"] = "../sample_inputs/model.pt"
        return json.dumps(told).encode()

    for change, why in ((custom, "holds objects of other kinds"), (elsewhere, "has odd entries in")):
        with pytest.raises(WeightsError, match=f"refused, for it {why}"):
            load_network(altered(program, tmp_path / "bad.pt2", change))
