"""The features of a `tf.train.Example`, and the parser of records."""

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
        text: the name of the class, if `label` is a number; optional.
        labels: used if there is no `label`: the classes of the objects in the image. The distinct ones are its tags.
        texts: the names of the classes in `labels`, one for each; optional.

    Example:
        >>> source = TFRecords("data/train-*.tfrecord", features=Features(image="jpeg", label="class_id"))
        >>> source.features.image
        'jpeg'
    """

    image: str = Field("image/encoded", min_length=1)
    label: str = Field("image/class/label", min_length=1)
    text: str | None = "image/class/text"
    labels: str | None = "image/object/class/label"
    texts: str | None = "image/object/class/text"


class Parsed(NamedTuple):
    """A parsed record.

    Attributes:
        image: encoded; empty if the record has none.
        labels: int, or bytes if they are class names.
        texts: the class name of each label; empty if the labels have no names.
        is_set: whether the labels are the classes of objects, which may occur more than once.
    """

    image: bytes
    labels: list[int] | list[bytes]
    texts: list[bytes]
    is_set: bool


def make_parser(features: Features) -> Callable[[bytes, str], Parsed]:
    """The function that parses a record; its second argument is the record's name, for messages.

    It raises DataError if the record is not a `tf.train.Example`, or if a feature is missing or has the wrong type.
    """
    import tensorflow as tf
    from google.protobuf.message import DecodeError

    def parse(record: bytes, name: str) -> Parsed:
        try:
            fields = tf.train.Example.FromString(record).features.feature
        except DecodeError:
            raise DataError(f"{name} is not a tf.train.Example. TFRecords reads only such records.") from None
        image = _values(fields, features.image, name, ("bytes_list",), "an encoded image")
        if len(image) > 1:
            raise DataError(f"{name}: {features.image!r} holds {len(image)} images; one per record is expected.")
        is_set = features.label not in fields and features.labels is not None and features.labels in fields
        key, text_key = (features.labels, features.texts) if is_set else (features.label, features.text)
        labels = _values(fields, key or "", name, ("int64_list", "bytes_list"), "integers or text")
        texts = _texts(fields, text_key) if labels and isinstance(labels[0], int) else []
        return Parsed(image[0] if image else b"", labels, texts if len(texts) == len(labels) else [], is_set)

    return parse


def _values(fields: Any, key: str, name: str, kinds: Iterable[str], expected: str) -> list[Any]:
    if key not in fields:
        names = ", ".join(sorted(fields)) or "none"
        raise DataError(
            f"{name} has no feature {key!r}.{nearest(key, fields)} It has: {names}. "
            "Give the names: features=Features(image=..., label=...)."
        )
    kind = fields[key].WhichOneof("kind")
    if kind is None:  # an empty list
        return []
    if kind not in kinds:
        raise DataError(f"{name}: {key!r} should hold {expected}, but it is a {kind}.")
    return list(getattr(fields[key], kind).value)


def _texts(fields: Any, key: str | None) -> list[bytes]:
    return list(fields[key].bytes_list.value) if key is not None and key in fields else []
