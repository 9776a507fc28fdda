"""The GPU check: workers that answer, fail, crash or hang; the printed report; the script."""

from __future__ import annotations

import io
import json
import math
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from rich.console import Console

from model_trainer.diagnosis.gpu.check import compute, read_log
from model_trainer.diagnosis.gpu.facts import (
    AllReduce,
    Check,
    Device,
    Diagnosis,
    Facts,
    GpuReport,
    TensorFlow,
    Versions,
)
from model_trainer.diagnosis.gpu.show import print_report, to_dict

pytestmark = pytest.mark.long

SCRIPT = Path(__file__).parents[3] / "script/GPUtest.py"

FAKE_WORKER = """
import json, os, signal, sys, time
done = json.loads(sys.argv[1])["done"]
def answer(**answer): print(json.dumps(answer), flush=True)
def right(name):
    check = dict(operation="matrix product", precision="float32", status="right", error=0.0, tolerance=1e-4,
                 teraflops=1.0, note="")
    answer(device=dict(device=name, name="Fake", compute_capability=[8, 6], checks=[check]))
answer(tensorflow=TENSORFLOW)
for name in ("GPU:0", "GPU:1"):
    if name in done: continue
    answer(checking=name)
    BODY
answer(checking="all-reduce")
ALL_REDUCE
"""
ANSWERS = 'answer(all_reduce=dict(devices=["GPU:0"], status="right", size_bytes=4, seconds=0.1, note=""))'


def fake_worker(body: str, all_reduce: str = ANSWERS) -> list[str]:
    tensorflow = repr(asdict(TensorFlow(with_cuda=True, gpus=("GPU:0", "GPU:1"))))
    program = FAKE_WORKER.replace("TENSORFLOW", tensorflow).replace("BODY", body).replace("ALL_REDUCE", all_reduce)
    return [sys.executable, "-c", program]


def test_the_json_lines_of_the_worker_become_results() -> None:
    phases: list[str] = []
    computed = compute(fake_worker("right(name)"), on_progress=phases.append)
    assert [device.device for device in computed.devices] == ["GPU:0", "GPU:1"]
    assert all(device.right and device.compute_capability == (8, 6) for device in computed.devices)
    assert computed.all_reduce == AllReduce(("GPU:0",), "right", 4, 0.1)
    assert computed.tensorflow.gpus == ("GPU:0", "GPU:1")
    assert phases == ["Checking GPU:0", "Checking GPU:1", "Checking all-reduce"]


def test_a_gpu_that_crashes_the_worker_is_reported_and_the_next_one_is_checked() -> None:
    crash = "print('F0000 00:00:1.2 7 cuda.cc:9] Check failed: no memory', file=sys.stderr, flush=True); os.abort()"
    body = f"if name == 'GPU:0': {crash}\n    right(name)"
    computed = compute(fake_worker(body))
    assert [device.right for device in computed.devices] == [False, True]
    assert computed.devices[0].failure == "the process was ended by SIGABRT. Check failed: no memory"
    assert computed.all_reduce is not None


def test_a_gpu_that_hangs_has_failed() -> None:
    body = "if name == 'GPU:1': time.sleep(60)\n    right(name)"
    computed = compute(fake_worker(body), silence_seconds=1)
    assert [device.right for device in computed.devices] == [True, False]
    assert "gave no answer for 1 seconds" in computed.devices[1].failure


def test_an_all_reduce_that_crashes_does_not_change_the_results_of_the_gpus() -> None:
    computed = compute(fake_worker("right(name)", "os.kill(os.getpid(), signal.SIGSEGV)"))
    assert all(device.right for device in computed.devices)
    assert computed.all_reduce is not None
    assert computed.all_reduce.status == "failed"
    assert "SIGSEGV" in computed.all_reduce.note


def test_a_crash_after_the_last_answer_keeps_all_results() -> None:
    computed = compute(fake_worker("right(name)", f"{ANSWERS}; os.abort()"))
    assert computed.all_reduce is not None
    assert computed.all_reduce.status == "right"


def test_tensorflow_that_crashes_at_import_is_an_import_error() -> None:
    computed = compute([sys.executable, "-c", "import os; os.kill(os.getpid(), 4)"])
    assert "SIGILL" in computed.tensorflow.import_error


def test_a_real_worker_computes_and_sums_over_two_devices() -> None:
    program = """
import json, os, sys
import tensorflow as tf
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2)
from model_trainer.diagnosis.gpu.worker import work
work({"CPU:0": True}, lambda answer: print(json.dumps(answer)), kind="CPU", timed=False, elements=1000)
"""
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    answers = [json.loads(line) for line in printed.splitlines()]
    assert [next(iter(answer)) for answer in answers] == ["tensorflow", "checking", "device", "checking", "all_reduce"]
    assert answers[2]["device"]["device"] == "CPU:1"
    assert {check["status"] for check in answers[2]["device"]["checks"]} == {"right"}
    assert answers[4]["all_reduce"]["devices"] == ["CPU:0", "CPU:1"]
    assert answers[4]["all_reduce"]["status"] == "right"


def test_libraries_that_failed_to_load_and_errors_are_read_from_the_log() -> None:
    log = (
        "I0000 00:00:1795253929.433391    6616 dso_loader.cc:144] Could not load dynamic library 'libcudnn.so.9'; "
        "dlerror: libcudnn.so.9: cannot open shared object file; LD_LIBRARY_PATH: /a\n"
        "To enable the following instructions: AVX2\n"
        "E0000 00:00:1795253929.433474    6616 cuda_platform.cc:52] failed call to cuInit: UNKNOWN ERROR (303)\n"
    )
    refused, tail = read_log(log)
    assert refused == (("libcudnn.so.9", "libcudnn.so.9: cannot open shared object file"),)
    assert tail == "failed call to cuInit: UNKNOWN ERROR (303)"


RIGHT = Device(
    "GPU:0",
    "Tesla T4",
    15 * 2**30,
    (7, 5),
    (
        Check("matrix product", "float32", "right", 2.1e-6, 2e-4, 4.3),
        Check("matrix product", "bfloat16", "failed", note="UnimplementedError: [no bfloat16] here"),
    ),
)


def printed(report: GpuReport) -> str:
    console = Console(file=io.StringIO(), width=160, highlight=False)
    print_report(report, console)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_a_correct_gpu_is_shown_with_its_results() -> None:
    report = GpuReport(Facts(), (RIGHT,), AllReduce(("GPU:0",), "right", 2**26, 0.001))
    text = printed(report)
    assert report.exit_code == 0
    assert "GPU:0: Tesla T4, 15.0 GiB, compute capability 7.5" in text
    assert "4.3   2.1e-06   2.0e-04   right" in text
    assert "failed (UnimplementedError: [no bfloat16] here)" in text
    assert "All-reduce over GPU:0: right, 64 MiB in 1.00 ms" in text
    assert "1 of 1 GPUs can train." in text


def test_a_report_without_a_gpu_ends_with_reason_and_cure() -> None:
    diagnosis = Diagnosis("no_cuda", "A library is missing.", ".venv/bin/pip install -e '.[gpu]'")
    report = GpuReport(Facts(), diagnosis=diagnosis)
    assert report.exit_code == 1
    assert printed(report).endswith("Likely reason: A library is missing.\nCure: .venv/bin/pip install -e '.[gpu]'\n")


def test_a_failed_all_reduce_suggests_training_on_one_device() -> None:
    report = GpuReport(Facts(), (RIGHT,), AllReduce(("GPU:0", "GPU:1"), "failed", note="the process hung"))
    assert report.exit_code == 0
    assert "hardware.devices=1" in printed(report)


def test_json_has_plain_types_and_the_key_ok() -> None:
    report = GpuReport(Facts(versions=Versions(tensorflow="2.21.0")), (RIGHT,))
    plain = json.loads(json.dumps(to_dict(report)))
    assert plain["ok"] is True
    assert plain["devices"][0]["right"] is True
    assert plain["devices"][0]["compute_capability"] == [7, 5]
    assert plain["facts"]["versions"]["tensorflow"] == "2.21.0"


def test_json_has_no_infinity() -> None:
    device = Device("GPU:0", checks=(Check("convolution", "float32", "wrong", math.inf, 2e-4),))
    text = json.dumps(to_dict(GpuReport(Facts(), (device,))), allow_nan=False)
    assert json.loads(text)["devices"][0]["checks"][0]["error"] is None


def test_the_script_prints_one_json_object_and_nothing_else() -> None:
    done = subprocess.run([sys.executable, str(SCRIPT), "--json"], capture_output=True, text=True, check=False)
    report = json.loads(done.stdout)
    assert done.stderr == ""
    assert done.returncode == (0 if report["ok"] else 1)
    assert report["ok"] or report["diagnosis"]["cure"]


INTERRUPTED = """
import os, signal, sys
from model_trainer.diagnosis.gpu import check, main

run = check.run_answering
# Ctrl-C, which reaches the worker too, as soon as the worker prints anything.
check.run_answering = lambda command, take, **options: run(command, lambda _: os.killpg(0, signal.SIGINT), **options)
sys.exit(main())
"""


@pytest.mark.slow
def test_ctrl_c_ends_the_check_without_a_traceback() -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, check=False, start_new_session=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "Stopped.\n")


@pytest.mark.gpu
def test_the_gpus_of_this_machine_compute_correctly() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--json"], capture_output=True, text=True, check=False, env=environment
    )
    report = json.loads(done.stdout)
    assert done.returncode == 0, report["diagnosis"]
    assert all(device["right"] for device in report["devices"])
    assert report["all_reduce"]["status"] == "right"
