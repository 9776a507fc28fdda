from __future__ import annotations

import json
from typing import Literal, final

import pytest
from pydantic import Field

from model_trainer.config import Call, Choice, Config, Live
from model_trainer.errors import ConfigError


class Shape(Choice):
    """A family for these tests."""


@final
class Circle(Shape):
    radius: float = Field(1.0, gt=0)


@final
class Square(Shape):
    side: float = 1.0


class Part(Config):
    count: int = Field(2, ge=1)
    shape: Shape | Call | Live = Circle()
    mode: Literal["none", "all"] | tuple[int | str, ...] = "none"


class Whole(Config):
    name: str
    part: Part = Part()
    extras: tuple[Call | Live, ...] = ()


WHOLE = Whole(name="w")


def test_a_value_is_frozen() -> None:
    with pytest.raises(Exception, match="frozen"):
        WHOLE.name = "other"


def test_positional_arguments_fill_fields_in_their_order() -> None:
    assert Whole("w", Part(3)) == Whole(name="w", part=Part(count=3))


def test_changed_makes_a_new_value_and_leaves_the_old_one() -> None:
    longer = WHOLE.changed("part.count", 30)
    assert (longer.part.count, WHOLE.part.count) == (30, 2)


def test_changed_reaches_into_a_kind_and_a_list() -> None:
    squares = WHOLE.changed("part.shape", "Square").changed("part.shape.side", 4)
    assert squares.part.shape == Square(side=4)
    assert WHOLE.changed("part.mode", ["a", "b"]).changed("part.mode.1", "c").part.mode == ("a", "c")


def test_json_gives_the_same_value_back() -> None:
    value = Whole("w", Part(5, Square(side=2), ("a", 3)), extras=(Call("my.code", alpha=0.5),))
    assert Whole.from_dict(json.loads(json.dumps(value.to_dict()))) == value


def test_json_names_the_kind_of_a_choice_and_the_path_of_a_call() -> None:
    data = Whole("w", extras=(Call("my.code", alpha=0.5),)).to_dict()
    assert data["part"]["shape"] == {"type": "Circle", "radius": 1.0}
    assert data["extras"] == [{"type": "my.code", "alpha": 0.5}]


def test_a_live_object_is_recorded_by_name_and_its_json_refuses_to_repeat() -> None:
    data = Whole("w", extras=(object(),)).to_dict()
    assert data["extras"] == [{"type": "Live", "object": "builtins.object"}]
    with pytest.raises(ConfigError, match=r"`extras.0` was a live Python object \(builtins.object\)"):
        Whole.from_dict(data)


def test_a_call_imports_and_calls() -> None:
    assert Call("fractions.Fraction", numerator=3, denominator=6).make() == 0.5


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("part.count", "abc", "`part.count` should be a whole number, got 'abc'."),
        ("part.count", 0, "`part.count` should be at least 1, got 0."),
        ("part.cuont", 3, "`part.cuont` is not an option of Part. Did you mean 'count'?"),
        ("prat.count", 3, "`prat` is not an option of Whole. Did you mean 'part'?"),
        ("name.first", 3, "`name` has no part named 'first'; its value is 'w'."),
        ("part.mode", "al", "`part.mode` should be one of 'none' or 'all' or a list, got 'al'. Did you mean 'all'?"),
        ("part.shape.radius", -1, "`part.shape.radius` should be above 0.0, got -1."),
        ("extras.0", 3, "`extras.0` should be a position from 0 to -1."),
    ],
)
def test_a_wrong_change_names_the_field_and_the_cure(name: str, value: object, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        WHOLE.changed(name, value)
    assert str(error.value) == message


def test_an_unknown_kind_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"`part.shape` should be one of Circle, Square.*got 'Cirle'"):
        WHOLE.changed("part.shape", "Cirle")


def test_a_wrong_option_deep_in_json_is_named_in_full() -> None:
    with pytest.raises(ConfigError, match=r"`part.shape.radios` is not an option of Circle. Did you mean 'radius'\?"):
        Whole.from_dict({"name": "w", "part": {"shape": {"type": "Circle", "radios": 2}}})


def test_a_missing_field_is_named() -> None:
    with pytest.raises(ConfigError, match="`name` is missing; Whole needs it"):
        Whole()
