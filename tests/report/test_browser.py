"""The report pages in headless Chromium, which is started once and uses them at widths of 360 and 1,440 pixels."""

from __future__ import annotations

import functools
import html
import http.server
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from model_trainer.report.comparison import write_comparison
from model_trainer.report.report import write_report

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(BROWSER is None, reason="there is no Chromium; on Debian: apt-get install chromium"),
]

DRIVER = Path(__file__).with_name("driver.html")
WEIRD = ["<script>alert(1)</script>", "a name " * 43, "x" * 300]


class _RecordingHandler(http.server.SimpleHTTPRequestHandler):
    requests: list[str] = []

    def do_GET(self) -> None:
        self.requests.append(self.path)
        super().do_GET()

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@pytest.fixture
def pages(make_folder: Callable[..., Path], evaluation: dict[str, Any], tags: dict[str, Any], tmp_path: Path) -> Path:
    """A folder with four pages: a report for classes, one for tags, one with weird names, and a comparison."""
    names = [f"tag {number}" for number in range(20)]
    numbers = [number / 20 for number in range(20)]
    tags |= {
        "classes": names,
        "per_class": {"images": [1] * 20, "precision": {"value": numbers}, "recall": {"value": numbers}},
    }
    text = json.dumps(evaluation)
    for name, weird in zip(("bag", "coat", "dress"), WEIRD, strict=True):
        text = text.replace(json.dumps(name), json.dumps(weird))
    folders = {
        "report": make_folder("report"),
        "tags": make_folder("tags", evaluation=tags),
        "weird": make_folder(WEIRD[0].replace("/", ""), evaluation=json.loads(text)),
    }
    served = tmp_path / "served"
    served.mkdir()
    for name, folder in folders.items():
        shutil.copy(write_report(folder), served / f"{name}.html")
    for other in ("report", "other"):
        rows = "".join(f"{number}.jpg,bag,{'bag' if number % 3 else other},{number % 3 > 0}\n" for number in range(30))
        folder = folders["report"] if other == "report" else make_folder(other)
        (folder / "evaluation" / "predictions.csv").write_text("image,true_label,predicted_label,correct\n" + rows)
    write_comparison([folders["report"], tmp_path / "other"], served / "comparison.html")
    shutil.copy(DRIVER, served)
    return served


@pytest.fixture
def port(pages: Path) -> Iterator[int]:
    _RecordingHandler.requests = []
    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(_RecordingHandler, directory=str(pages))
    ) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_the_pages_work_in_a_browser_without_further_requests(port: int, tmp_path: Path) -> None:
    assert BROWSER is not None
    done = subprocess.run(
        [
            BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--enable-logging=stderr",
            f"--user-data-dir={tmp_path / 'browser'}", "--window-size=1500,1000", "--dump-dom",
            f"http://127.0.0.1:{port}/driver.html",
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    match = re.search(r'<pre id="results">(.*?)</pre>', done.stdout, re.DOTALL)
    assert match
    results = json.loads(html.unescape(match[1]))
    assert [key for key, seen in results.items() if "error" in seen] == [], results
    assert not re.findall(r".*CONSOLE.*", done.stderr)
    assert {each.partition("?")[0] for each in _RecordingHandler.requests} <= {
        "/driver.html", "/report.html", "/tags.html", "/comparison.html", "/weird.html", "/favicon.ico",
    }  # fmt: skip
    for key, seen in results.items():
        assert seen["overflow"] == 0, key
        assert seen["requests"] == [], key
        assert seen["brokenPictures"] == 0, key
        assert seen["firstLink"] == "Skip to the content"
        assert set(seen["charts"]) == {"slider"}, key

    for width in (360, 1440):
        report, tags = results[f"report.html {width}"], results[f"tags.html {width}"]
        assert len(report["sections"]) == 10
        assert report["sorts"] == [
            ["ascending", ["dress", "coat", "bag"], True], ["descending", ["bag", "coat", "dress"], True],
        ]  # fmt: skip
        assert report["byPrecision"] == ["bag", "coat", "dress"]  # dress has no defined precision
        assert report["sortedColumns"] == 1
        assert report["key"] == [
            "epoch 3 training 0.5 validation 0.875", "epoch 1 training 1.25 validation 1.5",
            "epoch 2 training 0.75 validation –", "epoch 2: training 0.75, validation –",
        ]  # fmt: skip
        assert report["maps"] == [["none", "block"], ["block", "none"]]
        assert tags["filter"] == [False, [f"tag {number}" for number in (1, *range(10, 20))], "11 of 20"]
        assert tags["chosen"] == ["dress (0.625)", "dress, average precision 0.625"]
