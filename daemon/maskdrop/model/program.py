"""Networks saved by ``torch.export.save``, loaded only after a check that they hold no code.

``torch.export.load`` trusts its file: it unpickles what the safe unpickler refuses, evaluates
sizes as Python (``sympy.sympify``) and runs guards through ``exec``. So all of these are
checked here first, on the same bytes that are loaded afterwards: pickles by the safe
unpickler, expressions by a small grammar, operators and files by a list of allowed ones.
"""

import ast
import io
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import nn
from torch.torch_version import TorchVersion

from maskdrop import foreign_json
from maskdrop.model.errors import WeightsError, first_line
from maskdrop.model.faults import is_devices_fault
from maskdrop.model.shape import InputShape

_REMEDY = "export it again with torch.export.save"

_OLDEST = "2.8"
"""The first version of PyTorch that wrote archives in this form."""

_OLDER_MODEL = "serialized_exported_program.json"
"""The network's file in archives that older versions wrote."""

_ALLOWED_FILES = re.compile(
    r"[^/]+/(models/model\.json|archive_format|archive_version|version|byteorder|\.data/\w+"
    r"|\.format_version|\.storage_alignment"
    r"|data/(weights|constants)/(\w+_config\.json|(weight|tensor)_\d+)|data/sample_inputs/model\.pt)"
)
_MODEL = "models/model.json"
_OPERATOR = re.compile(
    r"torch\.ops\.aten\.(?!__|from_file)\w+\.\w+|_operator\.(getitem|add|sub|mul|floordiv|mod)"
)
_FUNCTIONS = frozenset(
    {"Integer", "Add", "Mul", "Pow", "Max", "Min", "Mod", "FloorDiv", "CleanDiv", "CeilDiv", "PythonMod"}
)
"""The functions that sympy writes sizes with (``sympy.srepr``), beside ``Symbol``."""

_SYMBOL = re.compile(r"[su]\d+")


def is_program(content: bytes) -> bool:
    """Whether a file is an archive of ``torch.export.save``, even of one too old to be read."""
    names = _names_in(content)
    return _OLDER_MODEL in names or any(name.endswith(("/" + _MODEL, "/archive_format")) for name in names)


def why_no_programs() -> str | None:
    """Why this PyTorch neither reads nor writes programs; None if it does both."""
    if TorchVersion(torch.__version__) >= _OLDEST:
        return None
    return f"torch.export programs need PyTorch {_OLDEST} or newer, and this is {torch.__version__}"


def load_program(content: bytes, path: Path, device: str = "cpu") -> tuple[nn.Module, InputShape]:
    """The network in an exported program, on a device, and the input it takes.

    Args:
        content: the whole file.
        path: its name, for messages.

    Raises:
        WeightsError: the program is damaged, holds something that could run code, or can't be loaded by this
            PyTorch.
        RuntimeError: the GPU fails, or runs out of memory.
    """
    if (reason := why_no_programs()) is not None:
        raise WeightsError(f"{path}: {reason}; install it, or give weights or ONNX")
    if _OLDER_MODEL in _names_in(content):
        problem = f"a PyTorch older than {_OLDEST} wrote this program"
        raise WeightsError(f"{path}: {problem}; export it again with a newer one")
    try:
        checked = checked_program(content)
    except _Unsafe as error:
        raise WeightsError(f"{path}: refused, for it {error}; {_REMEDY}") from error
    except MemoryError:
        raise
    except Exception as error:
        raise WeightsError(f"{path}: is damaged ({first_line(error)}); {_REMEDY}") from error
    try:
        program = torch.export.load(io.BytesIO(checked))
        shape = _shape_of(program)
        if device != "cpu":  # a module's own ``to`` moves neither constants nor devices in the graph
            from torch.export.passes import move_to_device_pass  # may import torch's compiler

            program = move_to_device_pass(program, device)
        return program.module(), shape
    except Exception as error:  # a foreign or damaged program fails in many ways
        if device != "cpu" and is_devices_fault(error):
            raise
        problem = f"no program that torch {torch.__version__} can load ({first_line(error)})"
        raise WeightsError(f"{path}: {problem}; {_REMEDY}") from error


def _names_in(content: bytes) -> list[str]:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return archive.namelist()
    except Exception:  # anything but a sound archive fails in many ways
        return []


class _Unsafe(Exception):
    """The program holds something that could run code; the message continues a sentence after "it"."""


def checked_program(content: bytes) -> bytes:
    """Check everything in an archive that loading it would trust.

    Returns:
        An archive of nothing but the files that were checked: in the given one, another reader might find
        other files.

    Raises:
        _Unsafe: something in it is not known to be harmless.
    """
    checked = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as archive, zipfile.ZipFile(checked, "w") as copy:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise _Unsafe("is packed, as PyTorch packs none")
        if broken := archive.testzip():
            raise _Unsafe(f"is damaged at {broken}")
        names = archive.namelist()
        if len(set(names)) != len(names):
            raise _Unsafe("holds two files of one name")
        for name in names:
            if not _ALLOWED_FILES.fullmatch(name):
                raise _Unsafe(f"holds the file {name[:80]!r}, which a plain program doesn't")
            data = archive.read(name)
            if not name.endswith(_MODEL):
                _check_data(name, data)
            copy.writestr(name, data)
        models = [name for name in names if name.endswith("/" + _MODEL)]
        if len(models) != 1:
            raise _Unsafe(f"holds {len(models)} programs instead of one")
        _check_graph(_json_of(archive.read(models[0])))
    return checked.getvalue()


def _check_data(name: str, data: bytes) -> None:
    """Check a file that is not the graph: weights may be no pickles, and others may hold only tensors."""
    if name.endswith("_config.json"):
        entries = _json_of(data).get("config", {})
        if not isinstance(entries, dict):
            raise _Unsafe(f"has no list of weights in {name}")
        for entry in entries.values():
            if not isinstance(entry, dict) or "/" in str(entry.get("path_name")):
                raise _Unsafe(f"has odd entries in {name}")
            if entry.get("use_pickle", False) is not False:
                raise _Unsafe(f"has pickles for weights in {name}")
    elif PurePosixPath(name).name == "model.pt" or data[:2] in (b"PK", b"\x80\x02"):
        try:
            torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
        except Exception as error:
            if data[:2] == b"PK" or name.endswith(".pt"):
                raise _Unsafe(f"holds a pickle of more than tensors in {name}") from error


def _check_graph(model: dict[str, Any]) -> None:
    for key, value in _walk(model):
        if key == "target" and not (isinstance(value, str) and _OPERATOR.fullmatch(value)):
            raise _Unsafe(f"calls {str(value)[:80]!r}, which is no operator of torch's own")
        if key == "expr_str" and not is_plain_expression(value):
            raise _Unsafe(f"has a size that is no plain arithmetic: {str(value)[:80]!r}")
        if key == "guards_code" and not (isinstance(value, list) and not value):
            raise _Unsafe("has guards written as code")
        if key == "custom_obj_values" and value:
            raise _Unsafe("holds objects of other kinds than tensors")


def _walk(node: Any) -> Iterator[tuple[str, Any]]:
    """Every key and value in a JSON tree, except those that only say where a node came from."""
    waiting = [node]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            for key, value in one.items():
                if key == "metadata" and isinstance(value, dict):
                    value = {k: v for k, v in value.items() if k not in ("stack_trace", "nn_module_stack")}
                yield key, value
                waiting.append(value)
        elif isinstance(one, list):
            waiting += one


def is_plain_expression(text: Any) -> bool:
    """Whether a text is arithmetic on whole numbers and size symbols, such as ``Max(1, s77 - 2)``.

    Or the same as sympy writes it: ``Add(Symbol('s77', integer=True), Integer(-2))``.
    """
    if not isinstance(text, str) or len(text) > 500:
        return False
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return _is_plain(tree.body)


def _is_plain(node: ast.expr) -> bool:
    match node:
        case ast.Constant(value=int()):
            return True
        case ast.Name(id=name):
            return bool(_SYMBOL.fullmatch(name))
        case ast.BinOp(
            left, ast.Add() | ast.Sub() | ast.Mult() | ast.FloorDiv() | ast.Mod() | ast.Div(), right
        ):
            return _is_plain(left) and _is_plain(right)
        case ast.UnaryOp(ast.USub() | ast.UAdd(), operand):
            return _is_plain(operand)
        case ast.Call(ast.Name(id="Symbol"), [ast.Constant(value=str(name))], assumptions):
            known = [
                isinstance(a.value, ast.Constant) and isinstance(a.value.value, bool) for a in assumptions
            ]
            return bool(_SYMBOL.fullmatch(name)) and all(known)
        case ast.Call(ast.Name(id=name), arguments, []):
            return name in _FUNCTIONS and all(_is_plain(argument) for argument in arguments)
    return False


def _json_of(data: bytes) -> dict[str, Any]:
    try:
        content = foreign_json.loads(data)
    except ValueError as error:
        raise _Unsafe("has JSON in it that can't be read") from error
    if not isinstance(content, dict):
        raise _Unsafe("has JSON in it of another form")
    return content


def _shape_of(program: torch.export.ExportedProgram) -> InputShape:
    """Batch sizes and picture size that the program was exported for."""
    (name,) = program.graph_signature.user_inputs
    (node,) = [n for n in program.graph.nodes if n.op == "placeholder" and n.name == name]
    batch, _, height, width = node.meta["val"].shape
    side = height if isinstance(height, int) and height == width else None
    if isinstance(batch, int):
        return InputShape(batch, batch, side)
    limits = program.range_constraints[batch.node.expr]
    largest = int(limits.upper) if limits.upper.is_finite else None
    return InputShape(max(1, int(limits.lower)), largest, side)
