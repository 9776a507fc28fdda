"""The filter of the lines that C++ libraries write to standard error."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from model_trainer.stderr_filter import _PROGRAM, HARMLESS, LIBJPEG_WARNINGS

pytestmark = pytest.mark.long


def run(code: str) -> subprocess.CompletedProcess[str]:
    script = "import os, sys, signal\nfrom model_trainer.stderr_filter import *\n" + code
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)


def test_harmless_lines_are_removed_and_all_others_are_forwarded_unchanged() -> None:
    lines = "".join([*(f"E0000 {words} x\\n" for words in HARMLESS), *(f"{words} x\\n" for words in LIBJPEG_WARNINGS)])
    done = run(f"""
os.write(2, b"first\\n")
with filtered_stderr():
    os.write(2, "{lines}a real one\\nunfinished".encode())
os.write(2, b" and last\\n")
""")
    assert done.stderr == "first\na real one\nunfinished and last\n"


@pytest.mark.parametrize(
    "end", ["os.abort()", "os.kill(os.getpid(), signal.SIGKILL)", "os._exit(3)", "os.killpg(0, 2)"]
)
def test_the_last_line_of_a_process_that_crashes_is_forwarded(end: str) -> None:
    done = run(f"""
os.setsid()
signal.signal(2, signal.SIG_DFL)
block = filtered_stderr()
block.__enter__()
os.write(2, b"oneDNN custom operations are on\\nthe reason")
{end}
""")
    assert done.returncode != 0
    assert done.stderr == "the reason"


def test_lines_from_python_bypass_the_filter_of_a_command() -> None:
    done = run("""
filter_stderr_until_exit()
filter_stderr_until_exit()
print("Corrupt JPEG data is what I say", file=sys.stderr)
os.write(2, b"Corrupt JPEG data: 3 extraneous bytes before marker 0xd9\\n")
os.write(2, b"a real one\\n")
""")
    assert sorted(done.stderr.splitlines()) == ["Corrupt JPEG data is what I say", "a real one"]


def test_a_command_does_not_filter_a_replaced_standard_error() -> None:
    done = run("""
import io
sys.stderr = mine = io.StringIO()
filter_stderr_until_exit()
assert sys.stderr is mine
os.write(2, b"Corrupt JPEG data\\n")
""")
    assert (done.returncode, done.stderr) == (0, "Corrupt JPEG data\n")


def test_lines_that_only_quote_a_warning_and_fatal_errors_are_forwarded() -> None:
    lines = "".join(f"ValueError: {words}\\n" for words in LIBJPEG_WARNINGS) + f"F0000 {HARMLESS[0]}\\n"
    done = run(f"""
with filtered_stderr():
    os.write(2, "{lines}".encode())
""")
    assert done.stderr == lines.replace("\\n", "\n")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1", "SIGINT", "SIGHUP"])
def test_a_signal_to_all_processes_of_a_job_does_not_end_the_filter(name: str) -> None:
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", _PROGRAM, "a", "b"], stdin=pipe, stderr=pipe, bufsize=0) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(b"one\n")
        assert process.stderr.read(4) == b"one\n"  # it has started
        process.send_signal(getattr(signal, name))
        process.stdin.write(b"two\n")
        process.stdin.close()
        assert process.stderr.read() == b"two\n"
    assert process.returncode == 0


def test_without_standard_error_nothing_is_filtered() -> None:
    command = [sys.executable, "-c", "import model_trainer.stderr_filter as f\nwith f.filtered_stderr(): print('here')"]
    done = subprocess.run(["sh", "-c", '"$@" 2>&-', "sh", *command], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "here\n")


def test_warnings_of_tensorflow_about_a_damaged_jpeg_are_removed() -> None:
    done = run("""
import io, sys
import model_trainer.quiet_tensorflow
import tensorflow as tf
from PIL import Image

stream = io.BytesIO()
Image.radial_gradient("L").save(stream, "JPEG")
jpeg = stream.getvalue()

def decode():
    for data in (jpeg[:-300], jpeg[:-2] + b"more" + jpeg[-2:], jpeg[:2] + bytes([255, 192, 0, 3]) + jpeg[2:]):
        try:
            tf.io.decode_jpeg(data)
        except tf.errors.InvalidArgumentError:
            pass

decode()
os.write(2, b"from here on with the filter\\n")
with filtered_stderr():
    decode()
os.write(2, b"end\\n")
""")
    before, after = done.stderr.split("from here on with the filter\n")
    assert before.count("\n") >= 3
    assert after == "end\n"
