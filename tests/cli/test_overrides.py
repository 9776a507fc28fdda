"""`--set NAME=VALUE`: an object may be given by its name or by a path."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from model_trainer import (
    KERAS_TRAINER,
    AdamW,
    EarlyStopping,
    ImageFolder,
    Manifest,
    ModelSpec,
    MultiLabel,
    RandAugment,
    RandomFlip,
    Run,
)
from model_trainer.cli.overrides import with_overrides
from model_trainer.errors import ConfigError

RUN = Run(spec=ModelSpec.named("vgg19"), train_data=ImageFolder("data/train"))


@pytest.mark.parametrize(
    ("text", "field", "expected"),
    [
        ("spec=mobilenet_v2", "spec", ModelSpec.named("mobilenet_v2")),
        ("augment=none", "augment", ()),
        ("augment=None", "augment", ()),
        ("augment=randomflip", "augment", (RandomFlip(),)),
        ('augment={"type": "RandAugment", "magnitude": 5}', "augment", (RandAugment(magnitude=5),)),
        ("augment=KERAS_TRAINER", "augment", KERAS_TRAINER),
        ("train_data=elsewhere/train", "train_data", ImageFolder("elsewhere/train")),
        ("val_data=none", "val_data", None),
        ("weights=none", "weights", None),
        ("weights=NULL", "weights", None),
        ("weights=none.hdf5", "weights", "none.hdf5"),
        ("val_data=val.csv", "val_data", Manifest("val.csv")),
        ("training.optimizer=adamw", "training.optimizer", AdamW()),
        ("task=multi_label", "task", MultiLabel()),
        ("callbacks=EarlyStopping", "callbacks", (EarlyStopping(),)),
        ("callbacks=none", "callbacks", ()),
    ],
)
def test_a_name_or_a_path_stands_for_an_object(text: str, field: str, expected: object) -> None:
    changed = with_overrides(RUN, [text])
    for name in field.split("."):
        changed = getattr(changed, name)
    assert changed == expected


def test_the_spec_may_be_a_file(tmp_path: Path) -> None:
    path = tmp_path / "model_spec.json"
    path.write_text(json.dumps(ModelSpec.named("resnet50").to_dict()))
    assert with_overrides(RUN, [f"spec={path}"]).spec == ModelSpec.named("resnet50")


def test_a_new_object_and_one_of_its_fields_may_be_set_in_the_same_command() -> None:
    as_json = json.dumps(ModelSpec.named("mobilenet_v1").to_dict())
    for new_spec in (f"spec={as_json}", "spec=mobilenet_v1"):
        for order in (1, -1):
            spec = with_overrides(RUN, [new_spec, "spec.target_size=[32,32,3]"][::order]).spec
            assert (spec.class_, spec.target_size) == ("keras.applications.mobilenet.MobileNet", (32, 32, 3))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("spec=mobilenet_v9", r"`spec` .*Did you mean 'mobilenet_v"),
        ("spec.name=mobilenet", r"`spec.name` is only a display name.* Use --set spec=mobilenet"),
        ("train_data=ImageFoldr", r"`train_data` should be one of .*Did you mean 'ImageFolder'"),
        ("training.optimizer=adamq", r"`training.optimizer` should be .*Did you mean 'Adam"),
        ("train_data=", r"`train_data` should be one of"),
        ('train_data={"type": "ImageFolder"', r"`train_data` should be one of"),
        ("train_data=README.md", r"`train_data` is wrong: README.md is not a data set"),
        ("augment=flipp", r"`augment.0` should be one of .*"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest_one(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        with_overrides(RUN, [text])
