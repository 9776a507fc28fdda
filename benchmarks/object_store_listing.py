"""How much memory and time does listing 10 million images in an object store take?

    .venv/bin/python benchmarks/object_store_listing.py    some minutes on 2 cores

A server on this machine replaces S3: it generates each page of 1,000 keys, in 100 folders, on request.
`ImageFolder(...).read()` runs in its own process. Prints its seconds, and its peak anonymous memory; columns mapped
from the disk do not count, because the kernel can reclaim them. Both first for a tenth of the images.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

NUM_CLASSES, PAGE = 100, 1000
READING = """
import json, threading, time
from model_trainer import ImageFolder

largest, stopped = 0, threading.Event()

def watch():
    global largest
    while not stopped.wait(0.05):
        with open("/proc/self/status") as file:
            anonymous = next(int(line.split()[1]) for line in file if line.startswith("RssAnon"))
        largest = max(largest, anonymous)

started = time.perf_counter()
threading.Thread(target=watch, daemon=True).start()
examples = ImageFolder("s3://photos/train").read()
stopped.set()
assert examples.name(0) == "s3://photos/train/0000/00000000.jpg"
print(json.dumps([len(examples), time.perf_counter() - started, largest * 1024]))
"""


class Pages(BaseHTTPRequestHandler):
    """Answers ListObjectsV2 requests with generated keys."""

    protocol_version = "HTTP/1.1"
    per_class = 0

    def do_GET(self) -> None:
        query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        prefix = query["prefix"]
        if "delimiter" in query:
            inner = "".join(
                f"<CommonPrefixes><Prefix>{prefix}{number:04}/</Prefix></CommonPrefixes>"
                for number in range(NUM_CLASSES)
            )
            token = None
        else:
            first = int(query.get("continuation-token", 0))
            last = min(first + PAGE, self.per_class)
            inner = "".join(
                f"<Contents><Key>{prefix}{number:08}.jpg</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
                f'<ETag>"{number:032x}"</ETag><Size>{number}</Size></Contents>'
                for number in range(first, last)
            )
            token = last if last < self.per_class else None
        more = f"<NextContinuationToken>{token}</NextContinuationToken>" if token else ""
        truncated = str(token is not None).lower()
        body = f"<ListBucketResult><IsTruncated>{truncated}</IsTruncated>{more}{inner}</ListBucketResult>".encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Logs nothing."""


def read(num_images: int) -> tuple[float, float]:
    """Reads `num_images` images in a new process; returns `(seconds, peak anonymous memory in bytes)`."""
    Pages.per_class = num_images // NUM_CLASSES
    server = ThreadingHTTPServer(("127.0.0.1", 0), Pages)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as temporary:
        environ = {
            **os.environ, "AWS_ACCESS_KEY_ID": "made-up", "AWS_SECRET_ACCESS_KEY": "made-up", "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_address[1]}", "MODEL_TRAINER_CACHE": temporary,
        }  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-c", READING], env=environ, stdout=subprocess.PIPE, check=True, text=True
        )
    server.shutdown()
    count, seconds, num_bytes = json.loads(done.stdout)
    assert count == Pages.per_class * NUM_CLASSES
    return seconds, num_bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000_000)
    count = parser.parse_args().images
    for num_images in (count // 10, count):
        seconds, num_bytes = read(num_images)
        print(
            f"{num_images:,} images: {seconds:.0f} s, {num_bytes / 2**20:.0f} MiB of memory "
            f"({num_bytes / num_images:.0f} bytes an image)",
            flush=True,
        )


if __name__ == "__main__":
    main()
