"""Our errors as one message on standard error and an exit code; everything else keeps its traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from model_trainer.cluster.supervisor import EXIT_LOST_HOST, STARTED
from model_trainer.errors import HostError, ModelTrainerError

__all__ = ["STOPPED_EARLY", "exit_code_of"]

STOPPED_EARLY = 75  # EX_TEMPFAIL: run it again, it will go on
INTERRUPTED = 130


def exit_code_of(command: Callable[[], object]) -> int:
    """Runs `command`; 0, or the exit code of the error it ended with."""
    try:
        command()
    except ModelTrainerError as error:
        print(f"Error: {error}", file=sys.stderr)
        # Its supervisor starts it again, other than after an orderly stop, which ends with the same code.
        return EXIT_LOST_HOST if isinstance(error, HostError) and STARTED in os.environ else error.exit_code
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader, such as `head`, has seen enough. Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else 0
    return 0
