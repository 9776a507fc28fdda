"""Results as tables on a terminal, and as plain columns in a pipe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.console import Console
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from model_trainer.messages import counted, shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model_trainer.evaluation.compare import Comparison
    from model_trainer.evaluation.evaluate import EvaluatedModel
    from model_trainer.report.runs import RunSummary
    from model_trainer.tasks.evaluation import Evaluation

__all__ = ["print_comparison", "print_evaluation", "print_predictions", "print_runs", "print_slices", "print_specs"]

MAX_SLICES = 20
MAX_COARSE_METRICS = 4
_UNLIMITED = 100_000  # characters, the width of a table in a pipe


def print_specs(console: Console) -> None:
    """Prints one row for each named spec; on a terminal too narrow for the class, without it."""
    from model_trainer.specs import TABLE, ModelSpec

    rows = []
    for name in TABLE:
        spec = ModelSpec.named(name)
        height, width, channels = spec.target_size
        rows.append([name, f"{height} x {width} x {channels}", spec.preprocess_func, spec.class_ or ""])
    columns = ["name", "size", "preprocess_func", "class"]
    table = _table(columns, rows)
    if not _fits(table, console):
        table = _table(columns[:-1], [row[:-1] for row in rows])
    _print_table(table, console)


def print_predictions(results: list[dict[str, Any]], console: Console, errors: Console) -> None:
    """Prints one row for each image, with labels and probabilities; unreadable images are printed to `errors`.

    If a row is wider than the terminal, the labels are printed below the path of each image.
    """
    rows: list[tuple[str, list[str]]] = []
    for result in results:
        if "error" in result:
            text = shown(f"{result['image']} {result['error']}")
            errors.print(text, highlight=False, soft_wrap=True, markup=False)
        else:
            rows.append((result["image"], [shown(_prediction_text(each)) for each in result["predictions"]]))
    table = _table(["image", "predictions"], [[image, "  ".join(texts)] for image, texts in rows])
    if not rows:
        return
    if _fits(table, console):
        _print_table(table, console)
        return
    for image, texts in rows:
        # The terminal wraps the path, not a line break, so that it can be copied.
        console.print(Text(shown(image)), soft_wrap=True)
        console.print(Padding.indent(_wrapped(texts, console.width - 2), 2))


def _prediction_text(prediction: dict[str, Any]) -> str:
    numbers = (f"{value:.3f}" for name, value in prediction.items() if name != "label")
    return " ".join([prediction["label"], *numbers])


def _wrapped(texts: list[str], width: int) -> Text:
    """The texts, two spaces apart, on lines of at most `width` characters; none is divided unless it is longer."""
    lines: list[str] = []
    for text in texts:
        if lines and cell_len(lines[-1]) + 2 + cell_len(text) <= width:
            lines[-1] += f"  {text}"
        else:
            lines.append(text)
    return Text("\n".join(lines), overflow="fold")


def print_runs(runs: list[RunSummary], settings: list[str], metric: str, console: Console) -> None:
    """Prints one row for each run; on a terminal too narrow for it, without the start time, or as several lines.

    Args:
        runs: in the order of the rows.
        settings: names of the settings to show.
        metric: name of another metric to show; a name that is not a metric is ignored.
    """
    from model_trainer.report.runs_table import run_cells, setting_text

    rows = []
    for run in runs:
        cells = run_cells(run)
        cells |= {name: setting_text(run.settings[name]) if name in run.settings else "" for name in settings}
        if any(metric in each.metrics for each in runs):
            cells[metric] = f"{run.metrics[metric]:.4f}" if metric in run.metrics else ""
        if any(each.problem for each in runs):
            cells["problem"] = run.problem
        rows.append(cells)
    columns = list(rows[0])
    for shown_columns in (columns, [name for name in columns if name != "started"]):
        table = _table(shown_columns, [[row[name] for name in shown_columns] for row in rows])
        if _fits(table, console):
            _print_table(table, console)
            return
    for row in rows:
        console.print(Text(shown(row["run"])), soft_wrap=True)
        facts = [f"{row['epochs']} epochs", row["state"], row["best"]]
        facts += [f"{name} {row[name]}" for name in columns[5:] if row[name]]
        console.print(Padding.indent(_wrapped([shown(fact) for fact in facts if fact], console.width - 2), 2))


def print_evaluation(evaluation: Evaluation, console: Console, *, by_class: bool = True) -> None:
    """Prints the metrics over all images, then those of each class."""
    metrics = evaluation.metrics()
    width = max([15, *map(len, metrics)])
    for name, value in metrics.items():
        console.print(f"{name:{width}} {value}", highlight=False)
    table = evaluation.table() if by_class else None
    if table is not None:
        _print_table(_table(*table), console)


def print_slices(evaluated: EvaluatedModel, console: Console) -> None:
    """Prints the headline metrics of slices, and of coarser classes."""
    for entry in evaluated.slices:
        names = list(entry["values"][0]["metrics"]) if entry["values"] else []
        rows = [
            [each["value"], f"{each['images']:,}", *(_value_text(each["metrics"].get(name)) for name in names)]
            for each in entry["values"][:MAX_SLICES]
        ]
        console.print()
        _print_table(_table([entry["by"], "images", *names], rows), console)
        num_more = entry["num_values"] - len(rows)
        if num_more > 0:
            console.print(
                f"The {len(rows)} worst of {entry['num_values']:,}; evaluation.json has more.", highlight=False
            )
    if evaluated.coarse is not None:
        metrics = evaluated.coarse["metrics"]
        console.print(
            f"\nCoarser classes of {evaluated.coarse['mapping']}", soft_wrap=True, highlight=False, markup=False
        )
        for name in list(metrics)[:MAX_COARSE_METRICS]:
            console.print(f"{name:17} {_value_text(metrics[name])}", highlight=False)


def _value_text(estimate: dict[str, float | None] | None) -> str:
    value = None if estimate is None else estimate["value"]
    return "" if value is None else f"{value:.4f}"


def print_comparison(comparisons: Sequence[Comparison], console: Console) -> None:
    """Prints how each model differs from the first, with intervals and significance."""
    for each in comparisons:
        console.print(f"\n{each.second} compared with {each.first}", soft_wrap=True, highlight=False, markup=False)
        rows = [
            [name, f"{paired.difference:+.4f}", f"{paired.low:+.4f} to {paired.high:+.4f}", f"{paired.p_value:.2g}",
             paired.test]
            for name, paired in each.scores.items()
        ]  # fmt: skip
        _print_table(_table(["mean of", "difference", "95 % interval", "p", "test"], rows), console)
        if "correct" in each.scores:
            right, wrong = len(each.only_second_correct), len(each.only_first_correct)
            console.print(
                f"Only the second model is right about {counted(right, 'image{s}')}, only the first about "
                f"{counted(wrong, 'image{s}')}.",
                highlight=False,
                soft_wrap=True,
            )


def _print_table(table: Table, console: Console) -> None:
    """Prints a table; in a pipe at full width, so that each row is one line."""
    if not console.is_terminal:
        console = Console(file=console.file, width=_UNLIMITED)
    console.print(table)


def _fits(table: Table, console: Console) -> bool:
    """Whether no cell needs to be wrapped; a pipe has no width."""
    options = console.options.update(width=_UNLIMITED)
    return not console.is_terminal or Measurement.get(console, options, table).maximum <= console.width


def _table(columns: list[str], rows: list[list[str]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(shown(cell)) for cell in row))
    return table
