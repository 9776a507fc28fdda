"""`model-trainer preview`."""

from __future__ import annotations

import typer

from model_trainer.cli.overrides import load_run, with_overrides
from model_trainer.cli.starting import announce_tensorflow
from model_trainer.stderr_filter import filter_stderr_until_exit

__all__ = ["preview"]


def preview(
    run: str = typer.Argument(help="A .py file that defines `run`, or a training_options.json."),
    output: str = typer.Option("preview.png", "--output", metavar="FILE", help="Image file to write."),
    count: int = typer.Option(8, "--count", metavar="N", min=1, max=64, help="Number of images."),
    draws: int = typer.Option(4, "--draws", metavar="N", min=1, max=16, help="Augmented versions of each image."),
    overrides: list[str] = typer.Option(
        [], "--set", metavar="NAME=VALUE", help="Change an option of the run, such as training.seed=1; repeatable."
    ),
    trust: bool = typer.Option(
        False, "--trust", help="Run the code that a .json names, also outside keras.applications."
    ),
) -> None:
    """Write a picture of training images beside augmented versions of them, as the model sees them."""
    declared = with_overrides(load_run(run, trust), overrides)

    announce_tensorflow()
    filter_stderr_until_exit()
    from model_trainer.api import preview as draw_preview

    draw_preview(declared, output, count, draws)
    typer.echo(f"Preview: {output}", err=True)
