"""Prints a diagnosis on a terminal: counts of images, then a table of findings."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.table import Table
from rich.text import Text

from model_trainer.diagnosis.data.diagnosis import Diagnosis
from model_trainer.findings.finding import Example
from model_trainer.messages import counted, shown

__all__ = ["print_diagnosis", "summary_of"]

_PIPED_WIDTH = 160  # characters, if the output is not a terminal; rich's default of 80 would fold long paths
_STYLES = {"fault": "bold red", "warning": "yellow", "note": "dim"}
_MAX_EXAMPLES = 3  # of each finding


def summary_of(diagnosis: Diagnosis) -> str:
    """One sentence with the number of images, their size, and the number of findings of each level."""
    counts = diagnosis.counts()
    levels = [counted(counts[level], f"{level}{{s}}") for level in ("fault", "warning", "note") if counts.get(level)]
    images = f"{counted(len(diagnosis.survey), 'image{s}')}, {diagnosis.num_bytes / 2**20:,.1f} MiB"
    return f"{images}: {', '.join(levels) if levels else 'no problems found'}."


def print_diagnosis(diagnosis: Diagnosis, console: Console | None = None) -> None:
    """Prints the diagnosis, without colours if standard output is not a terminal."""
    console = console or Console(highlight=False, width=None if sys.stdout.isatty() else _PIPED_WIDTH)
    for split in diagnosis.survey.splits:
        num_classes = len(split.examples.classes)
        classes = f", {counted(num_classes, 'class{es}')}" if num_classes else ""
        origin = shown(split.examples.origin)
        console.print(f"{split.name:10} {counted(len(split.examples), 'image{s}')}{classes}  {origin}", markup=False)
    if diagnosis.findings:
        table = Table(box=None, pad_edge=False, padding=(1, 3, 0, 0), header_style="bold")
        table.add_column("", no_wrap=True)
        table.add_column("finding", overflow="fold", ratio=2)
        table.add_column("what to do", overflow="fold", ratio=3)
        for finding in diagnosis.findings:
            examples = "\n".join(_example_text(each) for each in finding.examples[:_MAX_EXAMPLES])
            more = f"\n... and {finding.count - _MAX_EXAMPLES:,} more" if finding.count > _MAX_EXAMPLES else ""
            table.add_row(
                Text(finding.level, _STYLES[finding.level]),
                Text.assemble((shown(finding.title), "bold"), "\n", (examples + more, "dim")),
                Text(finding.cure),
            )
        console.print(table)
    console.print(f"\n{summary_of(diagnosis)}", style="bold red" if diagnosis.exit_code else "green")


def _example_text(example: Example) -> str:
    return shown(f"{example.name}  {example.detail}".strip())
