"""Lines of C++ libraries on standard error."""

from __future__ import annotations

import subprocess
import sys

import pytest

from model_trainer.stderr_filter import HARMLESS


def run(code: str) -> subprocess.CompletedProcess[str]:
    script = "import os, sys, signal\nfrom model_trainer.stderr_filter import *\n" + code
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)


def test_harmless_lines_are_left_out_and_all_others_pass_as_they_come() -> None:
    lines = "".join(f"E0000 {words} x\\n" for words in HARMLESS)
    done = run(f"""
os.write(2, b"first\\n")
with filtered_stderr():
    os.write(2, "{lines}a real one\\nunfinished".encode())
os.write(2, b" and last\\n")
""")
    assert done.stderr == "first\na real one\nunfinished and last\n"


@pytest.mark.parametrize("end", ["os.abort()", "os.kill(os.getpid(), signal.SIGKILL)", "os._exit(3)", "os.kill(0, 2)"])
def test_the_last_words_of_a_process_that_dies_are_passed_on(end: str) -> None:
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


def test_a_command_keeps_pythons_own_lines_on_the_terminal_and_in_order() -> None:
    done = run("""
filter_stderr_until_exit()
filter_stderr_until_exit()
print("Corrupt JPEG data is what I say", file=sys.stderr)
os.write(2, b"Corrupt JPEG data: 3 extraneous bytes before marker 0xd9\\n")
os.write(2, b"a real one\\n")
""")
    assert sorted(done.stderr.splitlines()) == ["Corrupt JPEG data is what I say", "a real one"]


def test_a_command_inside_another_program_leaves_standard_error_alone() -> None:
    done = run("""
import io
sys.stderr = mine = io.StringIO()
filter_stderr_until_exit()
assert sys.stderr is mine
os.write(2, b"Corrupt JPEG data\\n")
""")
    assert (done.returncode, done.stderr) == (0, "Corrupt JPEG data\n")
