"""Shows a diagnosis on a terminal: figures, then a table of findings."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.table import Table
from rich.text import Text

from model_trainer.diagnosis.data.diagnosis import Diagnosis
from model_trainer.findings.finding import Example
from model_trainer.messages import counted, shown

__all__ = ["print_diagnosis", "summary_of"]

_PIPED_WIDTH = 160  # a file has no width of its own; rich would fold at 80
_STYLES = {"fault": "bold red", "warning": "yellow", "note": "dim"}
_MAX_NAMED = 3


def summary_of(diagnosis: Diagnosis) -> str:
    """One sentence: how much was examined, and what was found."""
    counts = diagnosis.counts()
    found = [counted(counts[level], f"{level}{{s}}") for level in ("fault", "warning", "note") if counts.get(level)]
    images = f"{counted(len(diagnosis.survey), 'image{s}')}, {diagnosis.num_bytes / 2**20:,.1f} MiB"
    return f"{images}: {', '.join(found) if found else 'nothing to complain of'}."


def print_diagnosis(diagnosis: Diagnosis, console: Console | None = None) -> None:
    """Prints the diagnosis; without colours when standard output is no terminal."""
    console = console or Console(highlight=False, width=None if sys.stdout.isatty() else _PIPED_WIDTH)
    for part in diagnosis.survey.parts:
        classes = len(part.examples.classes)
        what = f", {counted(classes, 'class{es}')}" if classes else ""
        origin = shown(part.examples.origin)
        console.print(f"{part.name:10} {counted(len(part.examples), 'image{s}')}{what}  {origin}", markup=False)
    if diagnosis.findings:
        table = Table(box=None, pad_edge=False, padding=(1, 3, 0, 0), header_style="bold")
        table.add_column("", no_wrap=True)
        table.add_column("finding", overflow="fold", ratio=2)
        table.add_column("what to do", overflow="fold", ratio=3)
        for finding in diagnosis.findings:
            named = "\n".join(_named(each) for each in finding.examples[:_MAX_NAMED])
            more = f"\n... and {finding.count - _MAX_NAMED:,} more" if finding.count > _MAX_NAMED else ""
            table.add_row(
                Text(finding.level, _STYLES[finding.level]),
                Text.assemble((shown(finding.title), "bold"), "\n", (named + more, "dim")),
                Text(finding.cure),
            )
        console.print(table)
    console.print(f"\n{summary_of(diagnosis)}", style="bold red" if diagnosis.exit_code else "green")


def _named(example: Example) -> str:
    return shown(f"{example.name}  {example.detail}".strip())
