"""Runs the command line: `python -m model_trainer` is the same as `model-trainer`."""

from model_trainer.cli.main import main

main()
