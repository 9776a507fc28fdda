"""What is where in a `tf.train.Example`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from pydantic import Field

from model_trainer.config import Config
from model_trainer.errors import DataError
from model_trainer.messages import nearest

__all__ = ["Features", "Parsed", "make_parser"]


class Features(Config):
    """The names of the features of a `tf.train.Example`.

    Fields:
        image: the encoded image.
        label: the class as a number, or as text; several values are tags.
        text: names the class of `label` where that is a number; need not be there.
        labels: used where there is no `label`: the classes of the objects in the image. The set of them are its tags.
        texts: names the classes of `labels`, one for each; need not be there.
    """

    image: str = Field("image/encoded", min_length=1)
    label: str = Field("image/class/label", min_length=1)
    text: str | None = "image/class/text"
    labels: str | None = "image/object/class/label"
    texts: str | None = "image/object/class/text"


class Parsed(NamedTuple):
    """What a record says.

    Attributes:
        image: encoded; empty where the record holds none.
        labels: int, or bytes where classes are given by their names.
        texts: a name for each of the labels, or none.
        is_set: whether the labels are the classes of objects, each of which may be there more than once.
    """

    image: bytes
    labels: list[int] | list[bytes]
    texts: list[bytes]
    is_set: bool


def make_parser(features: Features) -> Callable[[bytes, str], Parsed]:
    """A function from a record and its name for messages to what it says.

    It raises DataError where the record is no `tf.train.Example`, or a feature is missing or of a wrong kind.
    """
    import tensorflow as tf
    from google.protobuf.message import DecodeError

    def parse(record: bytes, name: str) -> Parsed:
        try:
            found = tf.train.Example.FromString(record).features.feature
        except DecodeError:
            raise DataError(f"{name} is no tf.train.Example. TFRecords reads records of that kind only.") from None
        image = _values(found, features.image, name, ("bytes_list",), "an encoded image")
        if len(image) > 1:
            raise DataError(f"{name}: {features.image!r} holds {len(image)} images; one for each record is expected.")
        is_set = features.label not in found and features.labels is not None and features.labels in found
        key, text_key = (features.labels, features.texts) if is_set else (features.label, features.text)
        labels = _values(found, key or "", name, ("int64_list", "bytes_list"), "whole numbers or text")
        texts = _texts(found, text_key) if labels and isinstance(labels[0], int) else []
        return Parsed(image[0] if image else b"", labels, texts if len(texts) == len(labels) else [], is_set)

    return parse


def _values(found: Any, key: str, name: str, kinds: Iterable[str], expected: str) -> list[Any]:
    if key not in found:
        there = ", ".join(sorted(found)) or "none"
        raise DataError(
            f"{name} has no feature {key!r}.{nearest(key, found)} It has: {there}. "
            "Name yours: features=Features(image=..., label=...)."
        )
    kind = found[key].WhichOneof("kind")
    if kind is None:  # how an empty list may be written
        return []
    if kind not in kinds:
        raise DataError(f"{name}: {key!r} should hold {expected}, but it is a {kind}.")
    return list(getattr(found[key], kind).value)


def _texts(found: Any, key: str | None) -> list[bytes]:
    return list(found[key].bytes_list.value) if key is not None and key in found else []
