"""`model-trainer report`."""

from __future__ import annotations

import typer

from model_trainer.errors import ConfigError

__all__ = ["report"]


def report(
    output_dir: str = typer.Argument(help="The output folder of a run."),
    other: list[str] | None = typer.Argument(None, help="Further runs to compare it with."),
    watch: bool = typer.Option(
        False, "--watch", help="Serve the page on this machine and update it during training, until Ctrl-C."
    ),
    port: int = typer.Option(0, "--port", metavar="N", min=0, max=65535, help="Port of --watch; default: a free one."),
) -> None:
    """Write the page of a run, report/index.html, from its files; with several runs compare them."""
    if watch and other:
        raise ConfigError("shows one run; leave out the others, or --watch.", "--watch")
    if watch:
        from model_trainer.report.watch import watch_report

        watch_report(output_dir, port, lambda address: typer.echo(f"Report: {address} until Ctrl-C", err=True))
    elif other:
        from model_trainer.report.comparison import write_comparison

        typer.echo(f"Comparison: {write_comparison([output_dir, *other])}", err=True)
    else:
        from model_trainer.report.report import write_report

        typer.echo(f"Report: {write_report(output_dir)}", err=True)
