"""How many requests per second does `model-trainer serve` answer, compared with FastAPI, LitServe and mosec?

    python3 -m venv /tmp/rivals
    ls -d $PWD/.venv/lib/python3.11/site-packages > /tmp/rivals/lib/python3.11/site-packages/ours.pth
    /tmp/rivals/bin/pip install fastapi litserve==0.2.19 mosec==0.9.8
    .venv/bin/python benchmarks/serve.py --rivals /tmp/rivals/bin/python      about an hour on 2 cores
    .venv/bin/python benchmarks/serve.py --memory 200000                      memory of our server, about six minutes

MobileNetV2 at 224 x 224 (with --memory at 32 x 32) with random weights, JPEG photos of 500 x 375 pixels and 50 KB, one
of 16 in turn; 1, 8, 32 and 64 connections, each with one request at a time (`serve_client.py`). Our server runs with
its defaults, but without an access log, like the others. Each rival runs at its best: in a first round all of its
SETTINGS below are tried, and the best for each concurrency is used. The rivals with "OpenVINO" run the same network as
our engine, in float32; the others run the Keras model in a `tf.function`, and FastAPI runs `model.predict`. Then the
servers are measured in turn, in several rounds, while the others are paused. Prints requests per second, latencies, and
CPU seconds of the server per request, which depend less on the load of a shared machine; the ratios of our server to
each rival; failed requests; and the largest difference of each server's probabilities from those of `model.predict` for
the pixels that it decodes. Finally requests arrive at fixed times, at 70 % of the highest rate of our server, and its
p99 latency is compared with that of one connection.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

import model_trainer.quiet_tensorflow  # noqa: F401  # isort: skip

import numpy as np

from rounds import spread  # isort: skip
from serve_model import SPEC, expected_answers, make_model, make_photos  # isort: skip
from serve_process import ServerProcess  # isort: skip
from serve_rivals import load_decoder  # isort: skip

HERE = Path(__file__).parent
CONCURRENCIES = (1, 8, 32, 64)
TOLERANCE = 1e-3  # for a probability; a different order of float32 operations changes it by about 1e-5

_ONE_THREAD = {"threads": 1, "workers": 2}
SETTINGS: dict[str, list[dict[str, Any]]] = {
    "fastapi": [
        {"decoder": "pillow"},
        {"decoder": "tensorflow"},
        {"decoder": "pillow", "lock": True},
    ],
    "litserve": [
        {"engine": "keras", "max_batch": 8, "wait_ms": 2},
        {"engine": "keras", "max_batch": 8, "wait_ms": 2, "fast_queue": True},
        {"engine": "keras", "max_batch": 8, "wait_ms": 2, "workers": 2, "tf_threads": 1},
        {"engine": "keras", "max_batch": 8, "wait_ms": 2, "workers": 2, "tf_threads": 1, "decoder": "tensorflow"},
    ],
    "litserve OpenVINO": [
        {"engine": "openvino", "max_batch": 8, "wait_ms": 2, "threads": 2},
        {"engine": "openvino", "max_batch": 8, "wait_ms": 2, **_ONE_THREAD},
        {"engine": "openvino", "max_batch": 2, "wait_ms": 1, **_ONE_THREAD},
        {"engine": "openvino", "max_batch": 8, "wait_ms": 2, "fast_queue": True, **_ONE_THREAD},
        {"engine": "openvino", "max_batch": 8, "wait_ms": 2, "decoder": "tensorflow", "tf_threads": 1, **_ONE_THREAD},
        {"engine": "openvino", **_ONE_THREAD},  # without batching
    ],
    "mosec": [
        {"engine": "keras", "max_batch": 8, "decoders": 1},
        {"engine": "keras", "max_batch": 8, "decoders": 2},
        {"engine": "keras", "max_batch": 8, "workers": 2, "tf_threads": 1},
        {"engine": "keras", "max_batch": 8, "workers": 2, "tf_threads": 1, "decoder": "tensorflow"},
    ],
    "mosec OpenVINO": [
        {"engine": "openvino", "max_batch": 8, "decoders": 1, "threads": 2},
        {"engine": "openvino", "max_batch": 8, "decoders": 2, "threads": 2},
        {"engine": "openvino", "max_batch": 8, "decoders": 1, **_ONE_THREAD},
        {"engine": "openvino", "max_batch": 8, "decoders": 2, **_ONE_THREAD},
        {"engine": "openvino", "max_batch": 4, **_ONE_THREAD},
        {"engine": "openvino", "threads": 2},
        {"engine": "openvino", **_ONE_THREAD},  # without batching
        {"engine": "openvino", "decoder": "tensorflow", "tf_threads": 1, **_ONE_THREAD},
    ],
}
PATHS = {"fastapi": "/predict", "litserve": "/predict", "mosec": "/inference"}


class Load(NamedTuple):
    """The measurements of `serve_client.py`, and the CPU time of the server meanwhile."""

    per_second: float
    p50: float  # milliseconds
    p99: float
    cpu: float  # milliseconds per request
    num_failed: int
    reasons: dict[str, int]
    answers: list[list[dict[str, list[float]]]]  # the different answers for each photo


class Bench(NamedTuple):
    """The model, photos and programs that all measurements use."""

    folder: Path  # of the model
    photos: list[Path]
    expected: dict[str, np.ndarray]
    rivals: str  # the Python interpreter that has the rivals' packages

    def start(self, name: str, settings: dict[str, Any] | None = None) -> ServerProcess:
        if name == "ours":
            command = [sys.executable, "-m", "model_trainer", "serve", str(self.folder), "--no-access-log", "--port"]
            return ServerProcess(name, command, "/invocations?output=probabilities", {}, self.photos[0])
        assert settings is not None
        kind = name.split()[0]
        variables = {"SERVE_RIVAL": json.dumps([str(self.folder), settings])}
        if "tf_threads" in settings:
            threads = str(settings["tf_threads"])
            variables |= {"TF_NUM_INTRAOP_THREADS": threads, "TF_NUM_INTEROP_THREADS": threads}
        return ServerProcess(
            name, [self.rivals, str(HERE / f"serve_{kind}.py")], PATHS[kind], variables, self.photos[0]
        )

    def load(self, server: ServerProcess, *options: str) -> Load:
        command = [sys.executable, "-S", str(HERE / "serve_client.py"), str(server.port), server.path]
        cpu = server.cpu_seconds()
        done = subprocess.run([*command, *map(str, self.photos), *options], capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"The client failed:\n{done.stderr[-3000:]}")
        result = json.loads(done.stdout)
        times = 1000 * np.array(result["latencies"] or [float("nan")])
        p50, p99 = np.percentile(times, [50, 99])
        num_sent = max(1, result["num_sent"])
        used = 1000 * (server.cpu_seconds() - cpu) / num_sent
        rate = len(result["latencies"]) / result["seconds"]
        return Load(rate, p50, p99, used, result["failed"], result["reasons"], result["answers"])

    def difference(self, load: Load, decoder: str) -> float:
        """How far the answers are from `model.predict`."""
        pairs = zip(load.answers, self.expected[decoder], strict=True)
        return max(
            (float(np.abs(np.array(each["prediction"]) - row).max()) for answers, row in pairs for each in answers),
            default=float("nan"),
        )


def best_settings(bench: Bench, name: str, concurrencies: list[int], seconds: float) -> dict[int, dict[str, Any]]:
    """The settings with which this rival answers the most requests per second, for each concurrency."""
    best: dict[int, tuple[float, dict[str, Any]]] = {}
    for settings in SETTINGS[name]:
        with bench.start(name, settings) as server:
            rates = []
            for concurrency in concurrencies:
                load = bench.load(server, "--concurrency", str(concurrency), "--seconds", str(seconds))
                rates.append(load.per_second)
                if load.per_second > best.get(concurrency, (0.0, {}))[0]:
                    best[concurrency] = load.per_second, settings
        texts = [f"{rate:.1f} at {number}" for rate, number in zip(rates, concurrencies, strict=True)]
        print(f"    {name} {json.dumps(settings)}: requests/s {', '.join(texts)}", flush=True)
    return {concurrency: settings for concurrency, (_, settings) in best.items()}


def compare(bench: Bench, concurrency: int, chosen: dict[str, dict[str, Any]], num_rounds: int, seconds: float) -> None:
    servers: dict[str, ServerProcess] = {}
    loads: dict[str, list[Load]] = {name: [] for name in ("ours", *chosen)}
    options = ["--concurrency", str(concurrency), "--seconds", str(seconds)]
    try:
        for name in loads:
            servers[name] = bench.start(name, chosen.get(name))
            servers[name].pause()  # only one server at a time uses the cores
        for number in range(num_rounds):
            for name in list(servers) if number % 2 == 0 else list(reversed(servers)):
                servers[name].resume()
                loads[name].append(bench.load(servers[name], *options))
                servers[name].pause()
    finally:
        for server in servers.values():
            server.close()
    print(f"{concurrency} connections", flush=True)
    for name, each in loads.items():
        decoder = "ours" if name == "ours" else chosen[name].get("decoder", "pillow")
        show(name, each, max(bench.difference(load, decoder) for load in each))
        if name != "ours":
            print(f"        with {json.dumps(chosen[name])}")
    for name in chosen:
        pairs = list(zip(loads["ours"], loads[name], strict=True))
        rates = spread([ours.per_second / max(theirs.per_second, 1e-9) for ours, theirs in pairs], 2)
        cpu = spread([theirs.cpu / ours.cpu for ours, theirs in pairs], 2)
        print(f"    ours / {name}: requests/s {rates}; requests per CPU second {cpu}", flush=True)


def show(name: str, loads: list[Load], difference: float) -> None:
    rate, cpu = (spread([getattr(load, field) for load in loads], 1) for field in ("per_second", "cpu"))
    p50, p99 = (statistics.median(getattr(load, field) for load in loads) for field in ("p50", "p99"))
    wrong = "" if difference < TOLERANCE else " WRONG"
    print(f"    {name}: {rate} requests/s; p50 {p50:.1f} ms, p99 {p99:.1f} ms; CPU {cpu} ms/request")
    print(
        f"        {sum(load.num_failed for load in loads)} failed; from model.predict at most {difference:.1e}{wrong}"
    )
    for reason, count in sorted({key: n for load in loads for key, n in load.reasons.items()}.items()):
        print(f"        {count} x {reason}")


def compare_latency(bench: Bench, num_rounds: int, seconds: float) -> None:
    """Prints the p99 latency of our server at 70 % of its highest rate, and with one connection."""
    start_time = time.perf_counter()
    with bench.start("ours") as server:
        print(f"ours: {time.perf_counter() - start_time:.1f} s from the start of the process to the first answer")
        highest = max(
            statistics.median(
                bench.load(server, "--concurrency", str(number), "--seconds", str(seconds)).per_second for _ in range(3)
            )
            for number in (8, 32)
        )
        alone, loaded = [], []
        for _ in range(num_rounds):
            alone.append(bench.load(server, "--concurrency", "1", "--seconds", str(seconds)))
            loaded.append(bench.load(server, "--rate", str(0.7 * highest), "--seconds", str(seconds)))
    ratios = [each.p99 / one.p99 for each, one in zip(loaded, alone, strict=True)]
    print(f"{0.7 * highest:.1f} requests/s at fixed times, 70 % of the highest load")
    show("ours, one connection", alone, max(bench.difference(load, "ours") for load in alone))
    show("ours, 70 %", loaded, max(bench.difference(load, "ours") for load in loaded))
    print(f"    p99 / p99 of one connection: {spread(ratios, 2)}", flush=True)


def watch_memory(bench: Bench, num_requests: int) -> None:
    """Prints the memory of all processes of our server while it answers `num_requests`, in tenths of the time."""
    with bench.start("ours") as server:
        samples: list[float] = []
        done = threading.Event()

        def watch() -> None:
            while not done.wait(1.0):
                samples.append(server.memory_bytes() / 2**20)

        watcher = threading.Thread(target=watch)
        watcher.start()
        start_time = time.perf_counter()
        options = ["--concurrency", "8", "--count", str(num_requests), "--seconds", "1e9", "--warm-seconds", "0"]
        load = bench.load(server, *options)
        done.set()
        watcher.join()
    print(f"{num_requests} requests in {time.perf_counter() - start_time:.0f} s, {load.num_failed} failed")
    tenths = [statistics.median(part) for part in np.array_split(samples, 10) if len(part)]
    print(f"    MiB in each tenth: {', '.join(f'{each:.1f}' for each in tenths)}")
    print(f"    last / second tenth: {tenths[-1] / tenths[1]:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rivals", help="a Python that has fastapi, litserve, mosec, and all packages of this one")
    parser.add_argument("--only", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--concurrency", nargs="+", type=int, default=list(CONCURRENCIES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--tuning-seconds", type=float, default=5.0)
    parser.add_argument("--memory", type=int, metavar="N", help="only watch the memory of ours over N requests")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        photos, folder = make_photos(Path(place)), Path(place) / "run"
        folder.mkdir()
        if arguments.memory:
            make_model(folder, photos, SPEC.changed("target_size", (32, 32, 3)))  # a leak would be per request
            watch_memory(Bench(folder, photos, {}, arguments.rivals), arguments.memory)
            return
        make_model(folder, photos)
        decoders = {name: load_decoder({"decoder": name}) for name in ("pillow", "tensorflow")}
        bench = Bench(folder, photos, expected_answers(folder, photos, decoders), arguments.rivals)
        only = arguments.only if arguments.rivals else []
        best = {name: best_settings(bench, name, arguments.concurrency, arguments.tuning_seconds) for name in only}
        for concurrency in arguments.concurrency:
            chosen = {name: each[concurrency] for name, each in best.items() if concurrency in each}
            compare(bench, concurrency, chosen, arguments.rounds, arguments.seconds)
        compare_latency(bench, arguments.rounds, arguments.seconds)


if __name__ == "__main__":
    main()
