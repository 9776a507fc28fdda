from __future__ import annotations

from pathlib import Path

import pytest

from model_trainer.errors import DataError
from model_trainer.pipeline.bad_images import BadImages


def bad(tmp_path: Path, count: int, num_examples: int) -> BadImages:
    collected = BadImages(max_count=2, max_share=0.1, num_examples=num_examples)
    for number in range(count):
        (tmp_path / f"{number}.jpg").write_bytes(b"")
        collected.add(str(tmp_path / f"{number}.jpg"))
    return collected


def test_an_image_counts_once_however_often_it_is_met(tmp_path: Path) -> None:
    collected = bad(tmp_path, 2, 100)
    collected.add(str(tmp_path / "0.jpg"))
    assert len(collected) == 2
    assert collected.reasons[str(tmp_path / "0.jpg")] == "is empty (0 bytes)"


@pytest.mark.parametrize(("count", "num_examples"), [(2, 10), (3, 30), (3, 1000)])
def test_a_few_are_borne(tmp_path: Path, count: int, num_examples: int) -> None:
    bad(tmp_path, count, num_examples).check()


def test_more_than_the_count_and_the_share_stop_the_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"3 of 29 images could not be read[\s\S]*0\.jpg is empty[\s\S]*max_bad_share"):
        bad(tmp_path, 3, 29).check()


def test_a_file_that_is_gone_is_told_of(tmp_path: Path) -> None:
    collected = BadImages(0, 0.0, 1)
    collected.add(str(tmp_path / "none.jpg"))
    assert list(collected.reasons.values()) == ["is gone"]
