"""`ImageFolder` reads the same images from an object store as from the disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from model_trainer import ImageFolder
from model_trainer.errors import DataError

Upload = Callable[[Path, str], None]
FILES = {
    "cat/2.jpg": b"cat 2", "cat/1.JPEG": b"cat 1", "cat/deep/er/3.png": b"cat 3", "dog/1.webp": b"dog",
    "dog/.hidden.jpg": b"hidden", ".git/x.jpg": b"hidden", "cat/a-b/c.jpg": b"1", "cat/a.b/c.jpg": b"2",
    "cat/a/ü ö%20+.jpg": b"3", "beside.jpg": b"beside", "dog/notes.txt": b"good boy, says the note",
    "dog/scraped": b"\x89PNG\r\n\x1a\n and more", "dog/empty.txt": b"",
}  # fmt: skip


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        path = tmp_path / "zoo" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "zoo"


def test_images_are_listed_in_the_same_order_as_on_disk(zoo: Path, bucket: str, upload: Upload) -> None:
    upload(zoo, f"{bucket}/zoo")
    local, remote = ImageFolder(zoo).read(), ImageFolder(f"{bucket}/zoo").read()
    assert remote.names() == [name.replace(str(zoo), f"{bucket}/zoo") for name in local.names()]
    assert remote.classes == local.classes
    np.testing.assert_array_equal(remote.labels, local.labels)
    np.testing.assert_array_equal(remote.num_bytes, local.num_bytes)
    read = [remote.images.read(int(row)) for row in remote.rows]
    assert read == [local.images.read(int(row)) for row in local.rows]


def test_skipped_files_are_logged_as_on_disk(
    zoo: Path, bucket: str, upload: Upload, caplog: pytest.LogCaptureFixture
) -> None:
    upload(zoo, f"{bucket}/zoo")
    ImageFolder(zoo).read()
    ImageFolder(f"{bucket}/zoo/").read()
    local, remote = (record.getMessage() for record in caplog.records if "Skipped" in record.getMessage())
    assert "2 files of other types (.txt 2)" in local
    assert remote.replace(f"{bucket}/zoo/", f"{zoo}/").replace(f"{zoo}/:", f"{zoo}:") == local.replace(
        f"{zoo}/.git;", f"{zoo}/.git/x.jpg;"
    )


def test_a_missing_folder_is_named_with_the_cure(bucket: str) -> None:
    with pytest.raises(DataError, match=rf"There is no folder {bucket}/nothing. Put images into one folder"):
        ImageFolder(f"{bucket}/nothing").read()


def test_a_class_without_a_folder_in_the_store_is_refused(zoo: Path, bucket: str, upload: Upload) -> None:
    upload(zoo, f"{bucket}/zoo")
    with pytest.raises(DataError, match="has no folder for the class 'cow'"):
        ImageFolder(f"{bucket}/zoo", classes=("cat", "dog", "cow")).read()
