"""The report of a check: a table for people, JSON and CSV for programs, written finding by finding."""

import csv
import json
from itertools import islice
from typing import TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from maskdrop.check.findings import Finding, Findings, Tally
from maskdrop.names import printable, told_exactly

_ROWS = 500
"""Lines of a table that are laid out at once."""

_WIDE = 4_000
"""Columns where the table doesn't go to a terminal, so that nothing folds."""


def write_table(findings: Findings, tally: Tally, out: TextIO) -> None:
    """A line for each finding; on a terminal wide columns fold."""
    console = Console(file=out, highlight=False, width=None if out.isatty() else _WIDE)
    headings = ("picture", "", "why", "done" if any(finding.done for finding in findings) else "")
    rows = iter(findings)
    while part := list(islice(rows, _ROWS)):
        table = Table(box=None, pad_edge=False)
        for heading in headings:
            table.add_column(heading, overflow="fold")
        for finding in part:
            why = f"{finding.error}: {finding.message}"
            cells = (finding.path, finding.verdict.value, why, finding.done)
            table.add_row(*(Text(printable(cell)) for cell in cells))
        console.print(table)


def write_json(findings: Findings, tally: Tally, out: TextIO) -> None:
    """One object, with a line for each finding."""
    out.write('{\n  "findings": [')
    separator = "\n"
    for finding in findings:
        out.write(f"{separator}    {json.dumps(_entry(finding))}")
        separator = ",\n"
    summary = {
        "files": tally.total,
        "checked": tally.checked,
        "broken": findings.broken,
        "unread": findings.unread,
        "left_alone": tally.left_alone,
        "seconds": round(tally.seconds, 3),
        "interrupted": tally.interrupted,
    }
    lines = "".join(f',\n  "{key}": {json.dumps(value)}' for key, value in summary.items())
    out.write(f"\n  ]{lines}\n}}\n")


def write_csv(findings: Findings, tally: Tally, out: TextIO) -> None:
    """A heading, and a line for each finding (RFC 4180)."""
    writer: csv.DictWriter[str] = csv.DictWriter(out, ["path", "verdict", "error", "message", "done", "hex"])
    writer.writeheader()
    for finding in findings:
        writer.writerow({"hex": "", **_entry(finding)})


def _entry(finding: Finding) -> dict[str, str]:
    return {
        **told_exactly(finding.path),
        "verdict": finding.verdict.value,
        "error": finding.error,
        "message": printable(finding.message),
        "done": finding.done,
    }


def summary_line(findings: Findings, tally: Tally) -> str:
    """One line: how many, how fast, what was found."""
    rate = tally.checked / tally.seconds if tally.seconds else 0.0
    line = f"checked {tally.checked:,} of {tally.total:,} files in {tally.seconds:.1f} s ({rate:.0f}/s): "
    line += f"{findings.broken:,} broken, {findings.unread:,} could not be read"
    if tally.left_alone:
        line += f"; left alone {tally.left_alone:,} that are no files"
    return line + (", interrupted" if tally.interrupted else "")


WRITERS = {"table": write_table, "json": write_json, "csv": write_csv}
