"""The report that is served while a run trains, with a real server and a real client."""

from __future__ import annotations

import http.client
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from model_trainer.cli.errors import exit_code_of
from model_trainer.cli.main import app
from model_trainer.errors import ConfigError, DataError
from model_trainer.report import watch
from model_trainer.report.watch import serving

MakeFolder = Callable[..., Path]


def get(port: int, path: str = "/", host: str | None = None) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("GET", path, headers={} if host is None else {"Host": host})
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


@pytest.fixture
def folder(make_folder: MakeFolder) -> Path:
    folder = make_folder(evaluation=None)
    (folder / "final_model.hdf5").unlink()
    return folder


@pytest.fixture
def port(folder: Path) -> Iterator[int]:
    with serving(folder) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_the_page_and_its_version_are_served(port: int) -> None:
    status, page = get(port)
    assert status == 200
    assert f'data-version="{get(port, "/version")[1]}"' in page


def test_steps_of_the_current_epoch_update_the_page(folder: Path, port: int) -> None:
    before = get(port, "/version")[1]
    assert "step 9" not in get(port)[1]
    with (folder / "logs" / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "step", "step": 9, "loss": 0.125}\n')
    version, page = get(port, "/version")[1], get(port)[1]
    assert version != before
    assert f'data-version="{version}"' in page
    assert "step 9" in page


def test_epochs_update_the_page(folder: Path, port: int) -> None:
    with (folder / "history.csv").open("a") as file:
        file.write("4,0.25,0.9375,0.8125,0.65625,0.0001,30\n")
    assert "epoch 4" in get(port)[1]


@pytest.mark.parametrize(
    "path",
    [
        "/history.csv",
        "/../history.csv",
        "//etc/passwd",
        "/report/index.html",
        "/?x",
        "/version/",
        "/%2e%2e/history.csv",
    ],
)
def test_no_other_path_is_served(port: int, path: str) -> None:
    status, text = get(port, path)
    assert status == 404
    assert "epoch" not in text


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1.evil.example:{port}", ""]
)
def test_a_request_with_another_host_header_is_refused(port: int, host: str) -> None:
    for path in ("/", "/version"):
        status, text = get(port, path, host.format(port=port))
        assert status == 403
        assert "html" not in text


def test_a_request_to_localhost_is_answered(port: int) -> None:
    assert get(port, host=f"localhost:{port}")[0] == 200


def test_a_temporarily_damaged_file_does_not_change_the_page(folder: Path, port: int) -> None:
    options = (folder / "training_options.json").read_text()
    (folder / "training_options.json").write_text(options[:100])
    assert get(port) == get(port)
    assert get(port)[0] == 200
    (folder / "training_options.json").write_text(options.replace('"seed": 7', '"seed": 77777'))
    assert "77777" in get(port)[1]


def test_only_this_machine_can_connect(folder: Path) -> None:
    with serving(folder) as server:
        assert server.server_address[0] == "127.0.0.1"


def test_a_port_in_use_gives_one_message(folder: Path, port: int) -> None:
    with pytest.raises(ConfigError, match=f"{port} cannot be used: Address already in use"), serving(folder, port):
        pass


def test_a_folder_without_a_run_is_not_served(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not the output folder of a run"), serving(tmp_path):
        pass


def test_the_command_serves_until_ctrl_c_and_exits_with_0(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    responses: list[tuple[int, str]] = []

    def ask_and_interrupt(address: str) -> None:
        try:
            responses.append(get(int(re.findall(r":(\d+)/", address)[0])))
        finally:
            os.kill(os.getpid(), signal.SIGINT)

    original = watch.watch_report

    def watch_report(path: str, port: int, announce: Callable[[str], None]) -> None:
        def announce_and_ask(address: str) -> None:
            announce(address)
            threading.Thread(target=ask_and_interrupt, args=(address,)).start()

        original(path, port, announce_and_ask)

    monkeypatch.setattr(watch, "watch_report", watch_report)
    assert exit_code_of(lambda: app(["report", str(folder), "--watch"])) == 0
    assert responses[0][0] == 200
    assert re.fullmatch(r"Report: http://127\.0\.0\.1:\d+/ until Ctrl-C\n", capsys.readouterr().err)


def test_watching_several_runs_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code_of(lambda: app(["report", str(folder), str(folder), "--watch"])) == 2
    assert "shows one run" in capsys.readouterr().err


def test_a_damaged_file_adds_a_note_to_the_page_until_it_is_restored(folder: Path, port: int) -> None:
    spec = (folder / "model_spec.json").read_text()
    (folder / "model_spec.json").write_text("[" * 100_000)
    (folder / "history.csv").write_text("epoch,loss\n1,0.5\n")
    status, page = get(port)
    assert status == 200
    assert f"This page is out of date: {folder}/model_spec.json is damaged" in page
    assert f'data-version="{get(port, "/version")[1]}"' in page
    (folder / "model_spec.json").write_text(spec)
    assert "is not the newest" not in get(port)[1]
