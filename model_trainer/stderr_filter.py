"""Standard error without the lines that C++ libraries write there and nobody can act on.

TensorFlow and libjpeg write to the file descriptor, past Python, and no setting stops these lines. What they say of an
image names no file; the pipeline does, with the reason.

While the filter is on, the descriptor is a pipe to a small process that passes on all other lines. It is a process of
its own, so that the last words of one that crashes are passed on too.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator

__all__ = ["filter_stderr_until_exit", "filtered_stderr"]

# Lines with any of these words, but for those that say why TensorFlow ends the process.
HARMLESS = (
    # As TensorFlow is imported.
    "absl::InitializeLog()",
    "oneDNN custom operations are on",
    "Could not find cuda drivers on your machine",
    "failed call to cuInit",  # said on every machine without a driver; script/GPUtest.py says what it means
    "This TensorFlow binary is optimized",
    "To enable the following instructions",
    "factory for plugin",  # cuFFT, cuDNN and cuBLAS register twice
    # As pipelines are built and run.
    "use_unbounded_threadpool",  # a node that its own optimizer has changed
    "Premature end of JPEG data. Stopped at line",
)
# Lines that begin so: libjpeg, of damaged images.
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

# Reads until nobody is left who could write. A line is passed on in one piece, because several processes may write; one
# that does not end, such as a bar or a question, after half a second.
_PROGRAM = """
import os, select, signal, sys

for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2):
    signal.signal(number, signal.SIG_IGN)
words, starts = (tuple(each.encode() for each in text.split("|")) for text in sys.argv[1:])


def is_said(line):
    return line.startswith(b"F") or not (line.startswith(starts) or any(each in line for each in words))


def write(data):
    while data:
        try:
            data = data[os.write(2, data) :]
        except BlockingIOError:
            select.select([], [2], [])
        except OSError:  # a full disk, or nobody reads; both may be over at the next line
            return


rest = b""
while True:
    if rest and is_said(rest) and (len(rest) > 65536 or not select.select([0], [], [], 0.5)[0]):
        write(rest)
        rest = b""
    data = os.read(0, 65536)
    if not data:
        break
    *lines, rest = (rest + data).split(b"\\n")
    write(b"".join(line + b"\\n" for line in lines if is_said(line)))
if is_said(rest):
    write(rest)
"""

_is_on = False


@contextlib.contextmanager
def filtered_stderr() -> Iterator[int]:
    """Inside the block, lines of the descriptor 2 with any of `HARMLESS` are left out.

    Inside of another such block it does nothing more.

    Yields:
        A descriptor of the real standard error.
    """
    global _is_on
    if _is_on:
        yield 2
        return
    started = _start_filter()
    if started is None:
        yield 2
        return
    real, process = started
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
        # Not for ever: a process that was started meanwhile may hold the pipe open.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=1.0)
        _is_on = False


def filter_stderr_until_exit() -> None:
    """For a command: the filter stays on as long as the process lives.

    `sys.stderr` goes past it, so that a progress bar sees that it draws on a terminal. Where somebody else has taken
    its place, such as a notebook, nothing is done.
    """
    stream = sys.stderr
    try:
        is_ours = stream.fileno() == 2
    except (AttributeError, OSError, ValueError):
        is_ours = False
    if not is_ours:
        return
    block = contextlib.ExitStack()
    real = block.enter_context(filtered_stderr())
    sys.stderr = os.fdopen(os.dup(real), "w", 1, encoding=stream.encoding, errors=stream.errors)
    atexit.register(block.close)


def _start_filter() -> tuple[int, subprocess.Popen[bytes]] | None:
    """The real standard error and the process; None where there is no standard error, or no process to be had."""
    if sys.__stderr__ is None or not sys.executable:
        return None
    try:
        real = os.dup(2)
    except OSError:
        return None
    try:
        # In a session of its own, so that a Ctrl-C does not end it before the one that it listens to.
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
    with contextlib.suppress(AttributeError, OSError, ValueError):  # none, full, or closed
        sys.stderr.flush()
