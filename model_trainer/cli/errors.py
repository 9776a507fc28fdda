"""Errors of the command line: one message on standard error and an exit code; a bug keeps its traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from model_trainer.cluster.supervisor import EXIT_LOST_HOST, STARTED
from model_trainer.errors import HostError, ModelTrainerError, UnavailableError

__all__ = ["STOPPED_EARLY", "exit_code_of"]

STOPPED_EARLY = 75  # EX_TEMPFAIL: the same command with --resume continues
INTERRUPTED = 130


def exit_code_of(command: Callable[[], object]) -> int:
    """Runs `command` and returns 0, or the exit code of the error that it raised."""
    try:
        command()
    except ModelTrainerError as error:
        print(f"Error: {error}", file=sys.stderr)
        # A different code tells its supervisor to restart it, which does not happen after a regular early stop.
        is_outage = isinstance(error, (HostError, UnavailableError))
        return EXIT_LOST_HOST if is_outage and STARTED in os.environ else error.exit_code
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader, such as `head`, has closed the pipe. Python would raise again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else 0
    return 0
