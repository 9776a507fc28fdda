"""The settings of a run by dotted names."""

from __future__ import annotations

from model_trainer import (
    SGD,
    Call,
    ImageFolder,
    ModelSpec,
    Network,
    RandomFlip,
    RandomResizedCrop,
    Run,
    Training,
    Unfreeze,
)
from model_trainer.run.settings import changed_settings, flatten

RUN = Run(spec=ModelSpec.named("vgg19"), train_data=ImageFolder("data/train"))


def changes(**options: object) -> dict[str, object]:
    """The changed settings in addition to those of `RUN`."""
    before = changed_settings(RUN)
    changed = changed_settings(RUN.changed_all({name.replace("__", "."): value for name, value in options.items()}))
    assert before.items() <= changed.items()
    return {name: value for name, value in changed.items() if name not in before}


def test_settings_without_a_default_are_always_listed() -> None:
    assert {name.split(".")[0] for name in changed_settings(RUN)} == {"spec", "train_data"}


def test_a_setting_at_its_default_is_not_listed() -> None:
    assert changes(training=Training(epochs=Training().epochs, batch_size=8)) == {"training.batch_size": 8}


def test_a_choice_of_another_kind_is_listed_with_the_fields_that_differ_from_its_defaults() -> None:
    changed = changes(training__optimizer=SGD(momentum=0.8))
    assert changed == {"training.optimizer.type": "SGD", "training.optimizer.momentum": 0.8}


def test_items_of_a_list_are_numbered() -> None:
    changed = changes(augment=(RandomResizedCrop(area=(0.5, 1.0)), RandomFlip()))
    assert changed == {
        "augment.0.type": "RandomResizedCrop",
        "augment.0.area": [0.5, 1.0],
        "augment.1.type": "RandomFlip",
    }


def test_an_emptied_list_is_a_change() -> None:
    assert changes(augment=()) == {"augment": []}


def test_an_option_that_was_none_is_listed_with_its_fields() -> None:
    changed = changes(network=Network(unfreeze=Unfreeze(after_epochs=3, learning_rate=1e-5)))
    assert changed == {"network.unfreeze.after_epochs": 3, "network.unfreeze.learning_rate": 1e-5}


def test_user_code_is_listed_by_its_path_and_arguments() -> None:
    changed = changes(callbacks=(Call("my_code.MyCallback", every=100),))
    assert changed == {"callbacks.0.type": "my_code.MyCallback", "callbacks.0.every": 100}


def test_a_list_of_plain_values_can_be_one_value() -> None:
    settings = {"size": [224, 224], "augment": [{"type": "RandomFlip"}]}
    assert dict(flatten(settings, whole_lists=True)) == {"size": [224, 224], "augment.0.type": "RandomFlip"}
    assert dict(flatten(settings))["size.1"] == 224
