from __future__ import annotations

import json
from typing import Literal, final

import pytest
from pydantic import Field

from model_trainer.config import Choice, Config, with_present_names
from model_trainer.errors import ConfigError
from model_trainer.pipeline.augment import Augmentation, RandomGrayscale
from model_trainer.sources.manifest import Manifest
from model_trainer.sources.source import Source
from model_trainer.sources.split import Split  # noqa: F401  registers the kind
from model_trainer.user_code import Call, Live


class Shape(Choice):
    """A family for these tests."""


@final
class Circle(Shape):
    radius: float = Field(1.0, gt=0)


@final
class Square(Shape):
    side: float = 1.0


class Inner(Config):
    count: int = Field(2, ge=1)
    shape: Shape | Call | Live = Circle()
    mode: Literal["none", "all"] | tuple[int | str, ...] = "none"


class Outer(Config):
    name: str
    inner: Inner = Inner()
    extras: tuple[Call | Live, ...] = ()


OUTER = Outer(name="w")


def test_a_kind_with_the_exact_name_is_chosen_before_one_that_differs_in_case() -> None:
    class Shape(Choice):
        size: int = 1

    class Square(Shape):
        pass

    class SQUARE(Shape):
        former_names = ("Box",)

    assert type(Shape._choose({"type": "SQUARE"})) is SQUARE
    assert type(Shape._choose({"type": "Square"})) is Square
    assert type(Shape._choose({"type": "square"})) is Square
    assert type(Shape._choose({"type": "Box"})) is SQUARE


def test_a_field_is_read_under_its_former_name() -> None:
    class Step(Choice):
        pass

    class Moved(Step):
        former_names = ("Shifted",)
        former_fields = {"by": "offset"}
        offset: int = 0

    assert Moved(by=2) == Moved(offset=2)  # type: ignore[call-arg]
    assert Moved().changed("by", 3) == Moved(offset=3)
    assert Step._choose({"type": "Shifted", "by": 4}) == Moved(offset=4)
    recorded = {"shape": [{"type": "Shifted", "by": 4}], "by": 5, "training": {"max_bad_share": 0.5}}
    now = {"shape": [{"type": "Moved", "offset": 4}], "by": 5, "training": {"max_bad_fraction": 0.5}}
    assert with_present_names(recorded) == now
    call = Call("my_code.make", max_bad_share=1).to_dict()
    assert with_present_names([call]) == [call]


@pytest.mark.parametrize(
    ("recorded", "now"),
    [
        ({"type": "Split", "val": 0.2, "part": "val", "seed": 1}, {"val": 0.2, "split": "val", "seed": 1}),
        ({"type": "Fold", "folds": 3, "part": "train"}, {"folds": 3, "split": "train", "index": 0, "seed": 0}),
    ],
)
def test_splits_of_earlier_versions_are_read(recorded: dict[str, object], now: dict[str, object]) -> None:
    source = {"type": "ImageFolder", "path": "data/train", "classes": None}
    assert (
        Source._choose({**recorded, "source": source}).to_dict() == {"type": recorded["type"], "source": source} | now
    )


def test_a_manifest_of_an_earlier_version_is_read() -> None:
    assert Source._choose({"type": "Manifest", "path": "a.csv", "skip_unlabelled": True}) == Manifest(
        "a.csv", skip_unlabeled=True
    )


def test_an_augmentation_of_an_earlier_version_is_read() -> None:
    assert Augmentation._choose({"type": "RandomGrey", "probability": 0.3}) == RandomGrayscale(probability=0.3)


def test_a_value_is_frozen() -> None:
    with pytest.raises(Exception, match="frozen"):
        OUTER.name = "other"


def test_positional_arguments_set_fields_in_their_order() -> None:
    assert Outer("w", Inner(3)) == Outer(name="w", inner=Inner(count=3))


def test_changed_returns_a_new_value_and_keeps_the_old_one() -> None:
    longer = OUTER.changed("inner.count", 30)
    assert (longer.inner.count, OUTER.inner.count) == (30, 2)


def test_changed_reaches_into_kinds_and_lists() -> None:
    squares = OUTER.changed("inner.shape", "Square").changed("inner.shape.side", 4)
    assert squares.inner.shape == Square(side=4)
    assert OUTER.changed("inner.mode", ["a", "b"]).changed("inner.mode.1", "c").inner.mode == ("a", "c")


def test_a_value_read_back_from_json_is_the_same() -> None:
    value = Outer("w", Inner(5, Square(side=2), ("a", 3)), extras=(Call("my.code", alpha=0.5),))
    assert Outer.from_dict(json.loads(json.dumps(value.to_dict()))) == value


def test_json_names_the_kind_of_a_choice_and_the_path_of_a_call() -> None:
    data = Outer("w", extras=(Call("my.code", alpha=0.5),)).to_dict()
    assert data["inner"]["shape"] == {"type": "Circle", "radius": 1.0}
    assert data["extras"] == [{"type": "my.code", "alpha": 0.5}]


def test_json_names_a_live_object_and_cannot_be_read_back() -> None:
    data = Outer("w", extras=(object(),)).to_dict()
    assert data["extras"] == [{"type": "Live", "object": "builtins.object"}]
    with pytest.raises(ConfigError, match=r"`extras.0` was a live Python object \(builtins.object\)"):
        Outer.from_dict(data)


def test_a_call_imports_its_path_and_calls_it() -> None:
    assert Call("fractions.Fraction", numerator=3, denominator=6).make() == 0.5


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("inner.count", "abc", "`inner.count` should be a whole number, got 'abc'."),
        ("inner.count", 0, "`inner.count` should be at least 1, got 0."),
        ("inner.cuont", 3, "`inner.cuont` is not an option of Inner. Did you mean 'count'?"),
        ("innre.count", 3, "`innre` is not an option of Outer. Did you mean 'inner'?"),
        ("name.first", 3, "`name` has no option 'first'; its value is 'w'."),
        ("inner.mode", "al", "`inner.mode` should be one of 'none' or 'all' or a list, got 'al'. Did you mean 'all'?"),
        ("inner.shape.radius", -1, "`inner.shape.radius` should be above 0.0, got -1."),
        ("extras.0", 3, "`extras.0` should be an index from 0 to -1."),
    ],
)
def test_the_message_of_an_invalid_change_names_the_field_and_the_cure(name: str, value: object, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        OUTER.changed(name, value)
    assert str(error.value) == message


def test_the_message_of_an_unknown_kind_suggests_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"`inner.shape` should be one of Circle, Square.*got 'Cirle'"):
        OUTER.changed("inner.shape", "Cirle")


def test_a_wrong_option_deep_in_json_is_named_by_its_full_path() -> None:
    with pytest.raises(ConfigError, match=r"`inner.shape.radios` is not an option of Circle. Did you mean 'radius'\?"):
        Outer.from_dict({"name": "w", "inner": {"shape": {"type": "Circle", "radios": 2}}})


def test_a_missing_field_is_named() -> None:
    with pytest.raises(ConfigError, match="`name` is missing; Outer needs it"):
        Outer()
