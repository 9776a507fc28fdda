"""Prints a diagnosis on a terminal: counts of images, then the findings."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from model_trainer.diagnosis.data.diagnosis import Diagnosis
from model_trainer.findings.finding import Example, Finding
from model_trainer.messages import counted, shown

__all__ = ["print_diagnosis", "summary_of"]

_PIPED_WIDTH = 160  # characters, if the output is not a terminal
_STYLES = {"fault": "bold red", "warning": "yellow", "note": "dim"}
_INDENT = 9  # characters, the longest level and a space or two
_MAX_EXAMPLES = 3  # of each finding


def summary_of(diagnosis: Diagnosis) -> str:
    """One sentence with the number of images, their size, and the number of findings of each level."""
    counts = diagnosis.counts()
    levels = [counted(counts[level], f"{level}{{s}}") for level in ("fault", "warning", "note") if counts.get(level)]
    images = f"{counted(len(diagnosis.survey), 'image{s}')}, {diagnosis.num_bytes / 2**20:,.1f} MiB"
    return f"{images}: {', '.join(levels) if levels else 'no problems found'}."


def print_diagnosis(diagnosis: Diagnosis, console: Console | None = None) -> None:
    """Prints the diagnosis, without colors if standard output is not a terminal."""
    console = console or Console(highlight=False, width=None if sys.stdout.isatty() else _PIPED_WIDTH)
    for split in diagnosis.survey.splits:
        num_classes = len(split.examples.classes)
        classes = f", {counted(num_classes, 'class{es}')}" if num_classes else ""
        origin = shown(split.examples.origin)
        line = f"{split.name:10} {counted(len(split.examples), 'image{s}')}{classes}  {origin}"
        console.print(line, markup=False, soft_wrap=True)
    # Findings with the same cure print it once, after the last.
    groups: dict[tuple[str, str], list[Finding]] = {}
    for finding in diagnosis.findings:
        groups.setdefault((finding.level, finding.cure), []).append(finding)
    for (level, cure), findings in groups.items():
        console.print()
        for finding in findings:
            console.print(Text.assemble((f"{level:{_INDENT}}", _STYLES[level]), (shown(finding.title), "bold")))
            for example in finding.examples[:_MAX_EXAMPLES]:
                # The terminal wraps the path, not a line break, so that it can be copied.
                line = " " * _INDENT + _example_text(example)
                console.print(Text(line, "dim"), soft_wrap=True)
            if finding.count > _MAX_EXAMPLES:
                console.print(Text(f"{'':{_INDENT}}... and {finding.count - _MAX_EXAMPLES:,} more", "dim"))
        console.print(Padding.indent(Text.assemble(("What to do: ", "bold"), shown(cure)), _INDENT))
    console.print(f"\n{summary_of(diagnosis)}", style="bold red" if diagnosis.exit_code else "green")


def _example_text(example: Example) -> str:
    return shown(f"{example.name}  {example.detail}".strip())
