"""Pages of the reference that are made from docstrings and from what the code itself returns."""

import ast
import dataclasses
import inspect
import re
import textwrap
import typing
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from types import NoneType
from typing import Any

from prometheus_client.metrics_core import Metric

import maskdrop
from command_line import EXIT_CODES
from markdown_text import cell, joined, table
from maskdrop import exit_codes
from maskdrop.config import Settings
from maskdrop.events import Event
from maskdrop.health.file import Counts, Health, Latest, PlanHealth, StageHealth, State
from maskdrop.health.metrics import Metrics
from maskdrop.health.totals import Histogram, Totals

ROOT = Path(__file__).parent.parent

PLACEHOLDERS = {"queues": "STEP", "stages": "STAGE"}
"""Placeholders for the keys of tables that have many."""


def health_page() -> str:
    introduction = """\
Replaced, never written over, every `health.interval_s` (one second) and at each change of state; so a
reader sees a whole file, always. It is `health.json` beside the inbox, or `health.file`. However many
pictures there are it stays below 20 KiB: names and messages are cut to 160 characters, control characters
are escaped. How to use it: [monitoring](../monitoring.md).

Most look at `state` and `reason`, at `updated_at`, and at `backlog`."""
    rows = [[f"`{key}`", cell(what)] for key, what in keys_of(Health, "")]
    return joined(["# The health file", introduction, table(["Key", "What it says"], rows)])


def keys_of(section: Any, path: str) -> Iterator[tuple[str, str]]:
    """Every key below a dataclass, in the words of its docstring."""
    explained, kinds = attributes(section), typing.get_type_hints(section)
    for field in dataclasses.fields(section):
        key, what, kind = f"{path}{field.name}", explained[field.name], kinds[field.name]
        inner = typing.get_args(kind)
        if dataclasses.is_dataclass(kind):
            yield from keys_of(kind, f"{key}.")
        elif inner and dataclasses.is_dataclass(inner[-1]):
            below = f"{key}[]." if typing.get_origin(kind) is list else f"{key}.{PLACEHOLDERS[field.name]}."
            yield from keys_of(inner[-1], below)
        elif "``p50``" in what:
            yield f"{key}.p50`, `{key}.p99", what.split(": ", 1)[1]
        elif typing.get_origin(kind) is dict:
            free = "`, `queues.free_slots" if field.name == "queues" else ""
            yield f"{key}.{PLACEHOLDERS.get(field.name, 'STAGE')}{free}", what
        else:
            yield key, what


def attributes(documented: type) -> Mapping[str, str]:
    """What the section ``Attributes:`` of a docstring says about each name."""
    return named_paragraphs(inspect.getdoc(documented) or "", "Attributes:")


def named_paragraphs(document: str, heading: str) -> Mapping[str, str]:
    """``name: text`` entries below a heading of a docstring; lines indented further continue an entry."""
    below = document.partition(f"{heading}\n")[2].split("\n\n")[0]
    found: dict[str, str] = {}
    name = ""
    for line in textwrap.dedent(below).splitlines():
        if line.startswith(" "):
            found[name] += " " + line.strip()
        else:
            name, _, text = line.partition(":")
            found[name] = text.strip()
    return found


def metrics_page() -> str:
    introduction = """\
With `metrics.file` or `metrics.port` set: [how](../monitoring.md#metrics). Every metric has the label
`inbox`, so that the daemons of several inboxes on one machine don't mix. No picture's name is in them.
Counters start at 0 with the daemon. Times are seconds.

Most want `maskdrop_state`, `maskdrop_pictures_saved_total`, `maskdrop_pictures_backlog` and
`maskdrop_pictures_quarantined_total`; [alerts](../monitoring.md#alerts) are made of these."""
    rows = []
    for metric in sample_metrics():
        labels = {label for sample in metric.samples for label in sample.labels} - {"inbox", "le"}
        ordered = ", ".join(f"`{label}`" for label in sorted(labels))
        name = f"{metric.name}_total" if metric.type == "counter" else metric.name
        rows.append([f"`{name}`", metric.type, ordered, cell(metric.documentation)])
    head = ["Metric", "Type", "Labels", "What it says"]
    return joined(["# Metrics", introduction, table(head, rows)])


def sample_metrics() -> Iterator[Metric]:
    """Every metric, of a daemon that has seen everything once."""
    when = "2026-01-31T12:00:00.000+00:00"
    health = Health(
        state=State.RUNNING,
        reason="",
        pid=1,
        version="",
        started_at=when,
        updated_at=when,
        interval_s=1.0,
        counts=Counts(1, 1, 1, 1, 1),
        in_flight=0,
        backlog=0,
        queues={"infer": 0, "free_slots": 0},
        stages={"infer": StageHealth(1, 1, 0.0, 0, {"p50": None, "p99": None})},
        plan=PlanHealth(1, 1, 1, threads=1, max_batch=1, slots=1, measured_ms={}),
        workers=[],
        throughput_per_s=0.0,
        latency_ms={"p50": None, "p99": None},
        device="",
        precision="",
        model="",
        latest=Latest([], []),
    )
    one = {"infer": 1}
    totals = Totals(one, {"gone": 1}, {("infer", "died"): 1}, one, {"infer": 1.0}, {"infer": Histogram()})
    metrics = Metrics(Settings.model_validate({"folders": {"inbox": "/inbox", "outbox": "/outbox"}}))
    metrics.publish(health, totals)
    yield from metrics.collect()


def exit_codes_page() -> str:
    introduction = """\
0 and 1 are every command's own; the others say why trying again would or wouldn't help, as sysexits.h has
them. [The command line](command-line.md) tells what 1 means for each command. `maskdrop status --nagios`
ends with 0, 1, 2 or 3, as monitoring plugins do: [monitoring](../monitoring.md#health-checks)."""
    rows = [[code, cell(meaning)] for code, meaning in EXIT_CODES.items()]
    inner = [
        [f"`{name}`", str(getattr(exit_codes, name)), cell(text)] for name, text in constants(exit_codes)
    ]
    return joined(
        [
            "# Exit codes",
            introduction,
            table(["Code", "Meaning"], rows),
            "## By name",
            "As the code calls them, those of worker processes too, which the log tells.",
            table(["Name", "Code", "Meaning"], inner),
        ]
    )


def constants(module: Any) -> Iterator[tuple[str, str]]:
    """Constants of a module with the docstring below each."""
    body = ast.parse(inspect.getsource(module)).body
    for statement, after in pairwise(body):
        if isinstance(statement, ast.Assign) and isinstance(after, ast.Expr):
            (target,) = statement.targets
            assert isinstance(target, ast.Name)
            yield target.id, str(ast.literal_eval(after.value))


def journal_page() -> str:
    introduction = """\
What the daemon tells the journal, kind by kind. Each entry has `MASKDROP_EVENT` with the kind's name,
`MESSAGE_ID` with its identity, and the fields named in its text; which fields there are, and commands to
search by them: [the journal](../service.md#the-journal). With `log.format = "json"` the same facts are keys
of each line.

Most search for `quarantined` and `worker_died`."""
    pieces = ["# Journal events", introduction]
    catalog = catalog_entries((ROOT / "systemd" / "maskdrop.catalog").read_text(encoding="utf-8"))
    for event in Event:
        subject, text = catalog[event.value]
        pieces += [f"## {event.name.lower()}", f"{subject}: `MESSAGE_ID={event.value}`", text]
    return joined(pieces)


def catalog_entries(text: str) -> Mapping[str, tuple[str, str]]:
    """Subject and text of each entry (journalctl's catalogue), fields as code."""
    found = {}
    for entry in re.split(r"^-- ", text, flags=re.MULTILINE)[1:]:
        identity, head, body = re.fullmatch(r"(\w+)\n(.*?)\n\n(.*)", entry.strip(), re.DOTALL).groups()  # type: ignore[union-attr]
        (subject,) = re.findall(r"^Subject: (.*)$", head, re.MULTILINE)
        found[identity] = (subject, re.sub(r"@(\w+)@", r"`\1`", body))
    return found


def python_page() -> str:
    introduction = """\
What `from maskdrop import …` gives; [the guide](../python.md) shows it at work. Most need `Parser`, its
`parse`, and `Parsed.mask`."""
    pieces = ["# Python", introduction]
    for name in ("Parser", "Parsed", "BrokenPicture", "ConfigurationError", "WeightsError"):
        pieces += described_class(getattr(maskdrop, name))
    return joined(pieces)


def described_class(documented: type) -> Iterator[str]:
    """A class with its attributes and public methods."""
    yield f"## {documented.__name__}"
    if issubclass(documented, Exception):
        yield from described(documented)
        return
    if "__init__" in vars(documented) and not dataclasses.is_dataclass(documented):
        yield code(f"{documented.__name__}{signature(documented.__init__)}")
        yield from described(documented)
        yield from described(documented.__init__)
    else:
        yield from described(documented)
    for name, member in vars(documented).items():
        if name.startswith("_"):
            continue
        if isinstance(member, property):
            yield f"### {documented.__name__}.{name}"
            yield from described(member)
        elif inspect.isfunction(member):
            yield f"### {documented.__name__}.{name}"
            yield code(f"{name}{signature(member)}")
            yield from described(member)


def described(documented: Any) -> Iterator[str]:
    """A docstring's paragraphs, and its sections as tables."""
    for part in (inspect.getdoc(documented) or "").split("\n\n"):
        heading = part.partition("\n")[0]
        if heading in ("Args:", "Raises:", "Attributes:"):
            rows = [[f"`{name}`", cell(text)] for name, text in named_paragraphs(part, heading).items()]
            yield table([heading.rstrip(":").replace("Args", "Argument"), ""], rows)
        else:
            yield " ".join(part.replace("``", "`").split())


def signature(function: Any) -> str:
    """A function's signature without ``self``; a long one has one parameter per line."""
    found = inspect.signature(function)
    parameters = [p for p in found.parameters.values() if p.name != "self"]
    text = str(found.replace(parameters=parameters))
    text = re.sub(r"numpy\.ndarray\[[^]]*\], numpy\.dtype\[numpy\.(\w+)\]\]", r"NDArray[\1]", text)
    text = re.sub(r"NDArray\[numpy\.(\w+)\]", r"NDArray[\1]", text)  # as NumPy 2.5 writes it
    text = (
        text.replace("PIL.Image.Image", "Image")
        .replace("maskdrop.parse.", "")
        .replace("maskdrop.model.parser.", "")
    )
    text = re.sub(r"(collections\.abc|typing|os)\.", "", text)
    if found.return_annotation in (None, NoneType):
        text = text.removesuffix(" -> None")
    if len(text) > 90:
        text = (
            text.replace("(*, ", "(\n    *,\n    ")
            .replace(" = None, ", " = None,\n    ")
            .replace(" = None)", " = None,\n)")
        )
    return text


def code(text: str) -> str:
    return f"```python\n{text}\n```"
