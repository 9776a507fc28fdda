"""`model-trainer sync`: what it prints, and its exit codes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from model_trainer.cli import sync as command
from model_trainer.cli.errors import exit_code_of
from model_trainer.cli.main import app
from model_trainer.storage.sync.sync import Synchronization
from tests.object_stores.conftest import Weed
from tests.object_stores.proxy import Fault, Proxy
from tests.object_stores.sync.conftest import keys

Printed = Callable[..., tuple[int, str, str]]


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Printed:
    def run(*arguments: object) -> tuple[int, str, str]:
        code = exit_code_of(lambda: app(["sync", *map(str, arguments)]))
        return (code, *capsys.readouterr())

    return run


@pytest.fixture
def here(tmp_path: Path) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / "a.txt").write_bytes(bytes(1500))
    (folder / "b.txt").write_bytes(bytes(500))
    return folder


def test_sync_prints_how_much_was_copied_and_how_many_files_were_equal(
    printed: Printed, bucket: str, here: Path
) -> None:
    code, out, errors = printed(here, bucket)
    assert (code, errors) == (0, "")
    assert out.startswith("2 files (2.0 kB) copied in ")
    assert out.endswith("/s), 0 equal\n")
    assert ", 2 equal" in printed(here, bucket)[1]


def test_a_dry_run_prints_the_planned_changes(printed: Printed, bucket: str, s3: Weed, here: Path) -> None:
    code, out, _ = printed(here, bucket, "--dry-run", "--delete")
    assert (code, out) == (0, "copy a.txt\ncopy b.txt\nWould copy 2 files (2.0 kB), 0 equal, 0 to delete\n")
    assert keys(s3, bucket) == {}


def test_names_are_printed_without_control_sequences(printed: Printed, bucket: str, here: Path) -> None:
    (here / "a\u202e").write_bytes(b"")
    (here / "b\x1b[31m").write_bytes(b"")
    code, out, errors = printed(here, bucket, "--dry-run")
    assert (code, out.split("\n")[1]) == (2, "copy a\\u202e")
    assert errors.startswith("b\\x1b[31m: Its name contains a control character, which is not supported; rename it\n")


def test_failed_files_are_printed_and_the_exit_code_is_2(printed: Printed, bucket: str, here: Path) -> None:
    (here / "broken\u202e").symlink_to("missing")
    code, out, errors = printed(here, bucket, "--delete")
    assert code == 2
    assert out.startswith("2 files (2.0 kB) copied")
    assert errors == "broken\\u202e: No such file or directory\nError: 1 file could not be copied.\n"


def test_a_store_that_does_not_answer_gives_exit_code_75(
    printed: Printed, proxy: Proxy, bucket: str, here: Path
) -> None:
    proxy.faults = [Fault("PUT", "/b.txt", times=100_000, status=503, code="ServiceUnavailable")]
    code, _, errors = printed(here, bucket, "--jobs", "1")
    assert code == 75
    assert "1 file copied so far; the same command copies the rest.\n" in errors


def test_ctrl_c_gives_exit_code_130(printed: Printed, monkeypatch: pytest.MonkeyPatch) -> None:
    def press(self: Synchronization) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Synchronization, "run", press)
    code, _, errors = printed("here", "s3://bucket/copy")
    assert (code, errors) == (130, "0 files copied so far; the same command copies the rest.\n")


def test_a_missing_bucket_is_named(printed: Printed, s3: Weed, here: Path) -> None:
    code, _, errors = printed(here, "s3://no-such-bucket/x")
    assert code == 2
    assert "there is no bucket 'no-such-bucket'" in errors


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ("{here}", "{here}-2", "are both on this machine"),
        ("{here}/nothing", "s3://bucket/x", "There is no folder"),
        ("{here}/a.txt", "s3://bucket/x", "a.txt is a file; expected a folder."),
        ("s3://bucket/x", "{here}/a.txt", "a.txt is a file; expected a folder."),
        ("{here}", "", "Path B is empty. Is a variable of the shell not set?"),
        ("", "s3://bucket/x", "Path A is empty. Is a variable of the shell not set?"),
        ("{here}", "s3:/bucket/x", "Did you mean s3://bucket/x?"),
        ("{here}", "S3://bucket/x", "Did you mean s3://bucket/x?"),
        ("{here}", "ftp://host/x", "has the scheme 'ftp'. Expected a path, or one of s3://, gs://, az://."),
        ("s3://bucket/x", "s3://bucket/x/y", "are the same folder, or one contains the other."),
        ("s3://bucket", "s3://bucket/y", "are the same folder, or one contains the other."),
    ],
)
def test_unsuitable_paths_give_exit_code_2_and_the_cure(
    printed: Printed, s3: Weed, here: Path, source: str, target: str, message: str
) -> None:
    code, _, errors = printed(source.format(here=here), target.format(here=here))
    assert code == 2
    assert message in errors


def test_a_source_without_objects_gives_exit_code_2(printed: Printed, bucket: str, tmp_path: Path) -> None:
    code, _, errors = printed(f"{bucket}/missing", tmp_path / "there")
    assert (code, errors) == (2, f"Error: There is no folder {bucket}/missing.\n")
    assert not (tmp_path / "there").exists()


def test_a_common_prefix_of_names_does_not_mean_that_folders_overlap(
    printed: Printed, bucket: str, s3: Weed, here: Path
) -> None:
    printed(here, f"{bucket}/a")
    assert printed(f"{bucket}/a", f"{bucket}/ab")[0] == 0
    assert set(keys(s3, bucket)) == {"a/a.txt", "a/b.txt", "ab/a.txt", "ab/b.txt"}


def test_the_default_number_of_jobs_is_that_of_the_library() -> None:
    from model_trainer.storage.sync.sync import JOBS

    assert command.sync.__defaults__[-1].default == JOBS
