"""The page of the reference that tells every configuration key: from config.py and etc/maskdrop.toml."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from markdown_text import cell, joined, table
from maskdrop.config import Section, Settings
from maskdrop.ticket import Stage
from maskdrop.topology.worker import settings_of

EXAMPLE = Path(__file__).parent.parent / "etc" / "maskdrop.toml"

CHANGED = ("json", "another")
"""Stands for any other value: a tuple, as some settings are asked what they hold."""

BY_PLAN = {
    "workers.preprocess": "preprocess, those too many or missing",
    "workers.infer": "infer",
    "workers.save": "save, those too many or missing",
    "workers.inference_threads": "infer",
    "workers.slots": "all, for other shared memory",
}
"""Keys of which no worker reads the value: how many workers and slots there are is told by them."""

PATTERNS = {
    r"^0?[0-7]{3}$": "text of three octal digits",
    r"^(auto|cpu|cuda|cuda:\d+)$": '"auto", "cpu", "cuda", "cuda:N"',
    r"^[^/\x00]*$": "text of at most 64 characters without /",
}
"""In words."""

INTRODUCTION = """\
A TOML file, `maskdrop run --config FILE`. What a file leaves out has its default; an unknown key, or a
value of another type or out of its bounds, is refused with the key, the value and the remedy, and exit
code 78.
[etc/maskdrop.toml](../../etc/maskdrop.toml) has every key with its default, ready to be copied.

Most people set `folders.inbox` and `folders.outbox`, then `save.outputs` and `save.keep`, and nothing else.

SIGHUP, or `systemctl reload maskdrop`, takes up every key without a restart; the last column says whose
workers are replaced for it ("-": nobody's). `--inbox --outbox --quarantine --archive --health --weights
--device --log-level --log-format --log-file` on the command line override the file, and stand until the
daemon ends."""


def page() -> str:
    pieces = ["# Configuration", INTRODUCTION]
    explained = explanations(EXAMPLE.read_text(encoding="utf-8"))
    schema = Settings.model_json_schema()
    for name, field in Settings.model_fields.items():
        section = field.annotation
        assert isinstance(section, type)
        assert issubclass(section, Section)
        pieces.append(f"## {name}")
        pieces.append(cell((section.__doc__ or "").split("Attributes:")[0]))
        described = schema["$defs"][section.__name__]["properties"]
        rows = [
            [
                f"`{name}.{key}`",
                cell(kind(described[key], schema)),
                cell(default(section, key)),
                cell(explained[name, key]),
                cell(replaced(name, key)),
            ]
            for key in section.model_fields
        ]
        pieces.append(table(["Key", "What it may be", "Default", "What it does", "Workers replaced"], rows))
    return joined(pieces)


def explanations(example: str) -> Mapping[tuple[str, str], str]:
    """What the comments above each key of the example file say, by table and key."""
    found: dict[tuple[str, str], str] = {}
    section, comment, fresh = "", "", True
    for line in example.splitlines():
        if match := re.fullmatch(r"\[(\w+)\]", line):
            section, comment = match[1], ""
        elif match := re.match(r"(?:# )?(\w+) = ", line):
            found[section, match[1]] = comment
            fresh = True
        elif line.startswith("# "):
            comment = line[2:] if fresh else f"{comment} {line[2:]}"
            fresh = False
        elif not line:
            fresh = True
    return found


def kind(described: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    """Type and bounds, in words, of a JSON Schema as pydantic makes it."""
    if "$ref" in described:
        return kind(schema["$defs"][described["$ref"].rpartition("/")[2]], schema)
    if "anyOf" in described:
        parts = [kind(each, schema) for each in described["anyOf"] if each.get("type") != "null"]
        return " or ".join(parts)
    if "enum" in described:
        return ", ".join(f'"{value}"' for value in described["enum"])
    if "const" in described:
        return f'"{described["const"]}"'
    match described.get("type"):
        case "boolean":
            return "true, false"
        case "integer":
            return " ".join(["whole number", *bounds(described)])
        case "number":
            return " ".join(["number", *bounds(described)])
        case "string":
            return text_kind(described)
        case "array":
            return list_kind(described, schema)
        case "object":
            of = kind(described["additionalProperties"], schema)
            names = kind(described.get("propertyNames", {"type": "string"}), schema)
            return f"table of {of} by {names}"
    raise ValueError(f"no words for {described}")


def bounds(described: Mapping[str, Any]) -> Iterator[str]:
    low, high = described.get("minimum"), described.get("maximum")
    above = described.get("exclusiveMinimum")
    if above is not None:
        yield f"above {number(above)}, to {number(high)}" if high is not None else f"above {number(above)}"
    elif low is not None:
        yield f"{number(low)} to {number(high)}" if high is not None else f"from {number(low)}"


def number(value: float) -> str:
    return f"{value:,.10g}" if value % 1 else f"{int(value):,}"


def text_kind(described: Mapping[str, Any]) -> str:
    if described.get("format") == "path":
        return "path"
    longest = f" of at most {described['maxLength']} characters" if "maxLength" in described else ""
    return PATTERNS[described["pattern"]] if "pattern" in described else f"text{longest}"


def list_kind(described: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    few, most = described.get("minItems", 0), described.get("maxItems")
    if "prefixItems" in described:
        return f"list of {few}: {kind(described['prefixItems'][0], schema)}"
    count = f"{few} to {most}" if most is not None else f"at least {few}" if few else ""
    return f"list of {count}: {kind(described['items'], schema)}".replace("of :", "of")


def default(section: type[Section], key: str) -> str:
    """As it is written in TOML; a dash where there is none."""
    field = section.model_fields[key]
    if field.is_required():
        return "must be given"
    value = field.default
    return "-" if value is None else f"`{in_toml(value)}`"


def in_toml(value: Any) -> str:
    match value:
        case bool():
            return str(value).lower()
        case str():
            return f'"{value}"'
        case dict():
            return "{ " + ", ".join(f"{key} = {in_toml(each)}" for key, each in value.items()) + " }"
        case tuple():
            return "[" + ", ".join(map(in_toml, value)) + "]"
    return str(value)


def replaced(section: str, key: str) -> str:
    """Stages whose workers can't go on when the value changes."""
    if told := BY_PLAN.get(f"{section}.{key}"):
        return told
    old = Settings.model_validate({"folders": {"inbox": "/in", "outbox": "/out"}})
    table_of_it = getattr(old, section).model_copy(update={key: CHANGED})
    new = old.model_copy(update={section: table_of_it})
    stages = [stage.value for stage in Stage if settings_of(stage, old) != settings_of(stage, new)]
    if f"{section}.{key}" == "save.outputs":
        return ", ".join(stages).replace("infer", "infer (for json)")
    return "all" if len(stages) == len(Stage) else ", ".join(stages) or "-"
