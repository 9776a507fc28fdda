"""Checks whether TensorFlow sees the GPUs and how correctly and fast they compute; if not, why, and how to fix it."""

from __future__ import annotations

import json
import sys

__all__ = ["main"]


def main(*, as_json: bool = False) -> int:
    """Checks all GPUs and prints a report to standard output; progress goes to standard error.

    Args:
        as_json: print one JSON object and nothing else.

    Returns:
        The exit code: 0 when at least one GPU computes correctly, 1 when none does, 130 after Ctrl-C.
    """
    try:  # Ctrl-C may be pressed while these are imported
        from rich.console import Console

        from model_trainer.diagnosis.gpu.check import check_gpus
        from model_trainer.diagnosis.gpu.show import print_report, to_dict

        with Console(stderr=True).status("") as status:  # shown on a terminal only
            report = check_gpus(on_progress=lambda phase: status.update(f"{phase} ..."))
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130
    if as_json:
        print(json.dumps(to_dict(report), indent=2))
    else:
        print_report(report)
    return report.exit_code
