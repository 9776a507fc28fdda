"""`python -m model_trainer` is `model-trainer`."""

from model_trainer.cli.main import main

main()
