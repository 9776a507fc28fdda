"""Declared observers, and the groups of layers for which they log norms."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from model_trainer import ConfigError, ModelSpec, Run
from model_trainer.run.observers import layer_groups
from model_trainer.training.prepare import prepare

MakeRun = Callable[..., Run]


def test_the_layers_of_a_block_are_one_group() -> None:
    paths = ["conv1_conv/kernel", "conv2_block1_1_conv/kernel", "conv2_block2_1_bn/gamma", "predictions/bias"]
    assert layer_groups(paths) == {"conv1": [0], "conv2": [1, 2], "predictions": [3]}
    paths = ["stem_conv/kernel", "block2a_expand/kernel", "block2b_dwconv/kernel", "next_stage_1_block_0/nested/kernel"]
    assert layer_groups(paths) == {"stem_conv": [0], "block2": [1, 2], "next_stage_1": [3]}
    assert layer_groups(["probabilities/kernel", "probabilities/bias"]) == {"probabilities": [0, 1]}


def test_a_layer_with_a_default_name_joins_the_block_before_it() -> None:
    paths = ["block1_conv/kernel", "block2_conv/kernel", "conv2d_7/kernel", "batch_normalization/gamma", "fc/kernel"]
    assert layer_groups(paths) == {"block1": [0], "block2": [1, 2, 3], "fc": [4]}


def test_layers_whose_names_give_no_blocks_are_divided_in_order_into_equal_groups() -> None:
    for first in (0, 40):  # Keras numbers default names through all networks of a process
        paths = [f"conv2d_{number}/{name}" for number in range(first, first + 40) for name in ("kernel", "bias")]
        groups = layer_groups(paths)
        assert list(groups) == [f"part_{number:02}" for number in range(1, 17)]
        assert [index for indices in groups.values() for index in indices] == list(range(80))
        assert all(indices[0] % 2 == 0 for indices in groups.values())  # no layer is split between groups
    not_consecutive = ["a_1/kernel", "b_1/kernel", "a_1/bias", "c_1/kernel"]
    assert list(layer_groups(not_consecutive)) == ["part_01", "part_02", "part_03", "part_04"]
    assert list(layer_groups([f"vit_b16/block_{number}/kernel" for number in range(20)]))[-1] == "part_16"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("resnet50", "conv5"),
        ("xception", "block14"),
        ("nasnet_mobile", "part_16"),
        ("inception_v3", "part_16"),
        ("mobilenet_v2", "block_16"),
        ("convnext_tiny", "convnext_tiny_stage_3"),
    ],
)
def test_the_groups_of_real_networks_are_consecutive(make_run: MakeRun, spec: str, expected: str) -> None:
    prepared = prepare(make_run(spec=ModelSpec.named(spec)))
    variables = prepared.step_setup.network.model.trainable_variables
    groups = layer_groups([variable.path for variable in variables])
    assert expected in groups
    assert 3 <= len(groups) <= 32
    assert [index for indices in groups.values() for index in indices] == list(range(len(variables)))


@pytest.mark.parametrize("value", ["norms", 3, [{"type": "LayerNorms", "every": 0}]])
def test_a_value_that_is_not_an_observer_is_rejected(make_run: MakeRun, value: object) -> None:
    with pytest.raises(ConfigError, match="observers"):
        make_run().changed("observers", value)
