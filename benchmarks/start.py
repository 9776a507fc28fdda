"""How long does `model-trainer --help` take?

    .venv/bin/python benchmarks/start.py    about 15 seconds

Prints seconds of the whole process, and of `python -c pass` and `python -c "import tensorflow"`, measured in turn:
median and spread over rounds. The target is 0.6 s. Also prints whether TensorFlow was imported.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

ROUNDS = 7
COMMANDS = {
    "model-trainer --help": [sys.executable, "-m", "model_trainer", "--help"],
    "python -c pass": [sys.executable, "-c", "pass"],
    "import tensorflow": [sys.executable, "-c", "import tensorflow"],
}


def main() -> None:
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for round_ in range(ROUNDS + 1):
        for name, command in COMMANDS.items():
            started = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            if round_:  # the first fills the page cache
                seconds[name].append(time.perf_counter() - started)
    ours = statistics.median(seconds["model-trainer --help"])
    for name, times in seconds.items():
        median = statistics.median(times)
        spread = f"{min(times):.2f} to {max(times):.2f}"
        print(f"{name:22} median {median:.2f} s ({spread})   {median / ours:.2f} times --help")
    trace = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "model_trainer", "--help"],
        check=True,
        capture_output=True,
        text=True,
    )
    loaded = "tensorflow" in trace.stderr
    print(f"TensorFlow was {'loaded' if loaded else 'not loaded'}.")


if __name__ == "__main__":
    main()
