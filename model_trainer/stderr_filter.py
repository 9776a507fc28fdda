"""Removes lines from standard error that C++ libraries write there and that need no action.

TensorFlow and libjpeg write to the file descriptor, not through Python, and no setting stops these lines. Those about
an image do not name its file; the pipeline names it, with the reason.

While the filter is on, the file descriptor is a pipe to a small process that forwards all other lines. It is a separate
process, so that the last lines of a process that crashes are forwarded too.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator

__all__ = ["filter_stderr_until_exit", "filtered_stderr"]

# Lines that contain any of these strings are removed, unless they are fatal errors of TensorFlow.
HARMLESS = (
    # When TensorFlow is imported.
    "absl::InitializeLog()",
    "oneDNN custom operations are on",
    "Could not find cuda drivers on your machine",
    "failed call to cuInit",  # on every machine without a driver; script/GPUtest.py explains it
    "This TensorFlow binary is optimized",
    "To enable the following instructions",
    "factory for plugin",  # cuFFT, cuDNN and cuBLAS register twice
    # When pipelines are built and run.
    "use_unbounded_threadpool",  # a node that TensorFlow's own optimizer has changed
    "Premature end of JPEG data. Stopped at line",
)
# Lines that start with any of these are removed: from libjpeg, about damaged images.
LIBJPEG_WARNINGS = (
    "Bogus DHT index",
    "Bogus DQT index",
    "Bogus Huffman table definition",
    "Bogus marker length",
    "Bogus sampling factors",
    "Corrupt JPEG data",
    "Huffman table 0x",
    "Improper call to JPEG library",
    "Inconsistent progression sequence",
    "Input file read error",
    "Invalid JPEG file structure",
    "Invalid SOS parameters",
    "Invalid component ID",
    "Invalid progressive parameters",
    "JPEG datastream contains no image",
    "Premature end of JPEG file",
    "Quantization table 0x",
    "Unknown Adobe color transform code",
    "Unsupported JPEG",
    "Unsupported marker type",
    "Warning: unknown JFIF revision number",
)

# Reads until the last writer has closed the pipe. Lines are forwarded as a whole, because several processes may write;
# unfinished lines, such as progress bars or questions, are forwarded after half a second.
_PROGRAM = """
import os, select, signal, sys

for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2):
    signal.signal(number, signal.SIG_IGN)
harmless, prefixes = (tuple(string.encode() for string in joined.split("|")) for joined in sys.argv[1:])


def is_forwarded(line):
    return line.startswith(b"F") or not (line.startswith(prefixes) or any(string in line for string in harmless))


def write(data):
    while data:
        try:
            data = data[os.write(2, data) :]
        except BlockingIOError:
            select.select([], [2], [])
        except OSError:  # a full disk, or no reader; the next line may succeed
            return


rest = b""
while True:
    if rest and is_forwarded(rest) and (len(rest) > 65536 or not select.select([0], [], [], 0.5)[0]):
        write(rest)
        rest = b""
    data = os.read(0, 65536)
    if not data:
        break
    *lines, rest = (rest + data).split(b"\\n")
    write(b"".join(line + b"\\n" for line in lines if is_forwarded(line)))
if is_forwarded(rest):
    write(rest)
"""

_is_on = False


@contextlib.contextmanager
def filtered_stderr() -> Iterator[int]:
    """Removes harmless lines from file descriptor 2 inside the `with` block.

    A nested block has no further effect.

    Yields:
        File descriptor of the real standard error.
    """
    global _is_on
    if _is_on:
        yield 2
        return
    filter_process = _start_filter()
    if filter_process is None:
        yield 2
        return
    real, process = filter_process
    assert process.stdin is not None
    _flush()
    os.dup2(process.stdin.fileno(), 2)
    process.stdin.close()
    _is_on = True
    try:
        yield real
    finally:
        _flush()
        os.dup2(real, 2)
        os.close(real)
        # With a timeout: a child process that was started inside the block may keep the pipe open.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=1.0)
        _is_on = False


def filter_stderr_until_exit() -> None:
    """Filters standard error until the process exits; for commands.

    `sys.stderr` bypasses the filter, so that a progress bar still detects the terminal. If `sys.stderr` has been
    replaced, as in a notebook, nothing is done.
    """
    stream = sys.stderr
    try:
        is_original = stream.fileno() == 2
    except (AttributeError, OSError, ValueError):
        is_original = False
    if not is_original:
        return
    block = contextlib.ExitStack()
    real = block.enter_context(filtered_stderr())
    sys.stderr = os.fdopen(os.dup(real), "w", 1, encoding=stream.encoding, errors=stream.errors)
    atexit.register(block.close)


def _start_filter() -> tuple[int, subprocess.Popen[bytes]] | None:
    """Starts the process; returns the real standard error and the process, or None if either is not available."""
    if sys.__stderr__ is None or not sys.executable:
        return None
    try:
        real = os.dup(2)
    except OSError:
        return None
    try:
        # In its own session, so that Ctrl-C does not end it before the process whose lines it forwards.
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _PROGRAM, "|".join(HARMLESS), "|".join(LIBJPEG_WARNINGS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=real,
            start_new_session=True,
        )
    except OSError:
        os.close(real)
        return None
    return real, process


def _flush() -> None:
    with contextlib.suppress(AttributeError, OSError, ValueError):  # no stream, a full disk, or a closed stream
        sys.stderr.flush()
