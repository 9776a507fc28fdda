"""The table against the installed keras.applications."""

import importlib
import re
import runpy
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from model_trainer.dotted import import_dotted, is_safe
from model_trainer.errors import ConfigError
from model_trainer.specs import TABLE, ModelSpec, minimum_size, preprocessing_mismatch
from model_trainer.specs.table import WITHOUT_OWN_RESCALING

VGG19 = "keras.applications.vgg19.VGG19"
OFFERED = {
    name: offered for name, offered in vars(keras.applications).items() if callable(offered) and name[0].isupper()
}


def keras_module(name):
    """The public module of a model's class, such as keras.applications.vgg19."""
    made_in = import_dotted(TABLE[name].class_).__module__
    return importlib.import_module(f"keras.applications.{made_in.rpartition('.')[2]}")


def test_the_table_holds_every_model_that_keras_offers_once():
    listed = [entry.class_.rpartition(".")[2] for entry in TABLE.values()]
    assert sorted(listed) == sorted(OFFERED)


@pytest.mark.parametrize("name", TABLE)
def test_the_class_path_leads_to_the_public_class(name):
    path = TABLE[name].class_
    assert import_dotted(path) is OFFERED[path.rpartition(".")[2]]
    assert is_safe(path)


@pytest.mark.parametrize("name", TABLE)
def test_named_gives_the_complete_spec(name):
    spec = ModelSpec.named(name)
    entry = TABLE[name]
    assert (spec.name, spec.class_) == (name, entry.class_)
    assert spec.target_size == (entry.native_size, entry.native_size, 3)
    assert ModelSpec.from_dict(spec.to_dict()) == spec


@pytest.mark.parametrize("name", [name for name in TABLE if not name.startswith("mobilenet_v3")])
def test_the_native_size_is_the_classs_default_input_size(name, monkeypatch):
    class DefaultSize(Exception):
        pass

    def raise_default_size(input_shape, default_size, **_):
        raise DefaultSize(default_size)

    make = import_dotted(TABLE[name].class_)
    monkeypatch.setattr(
        importlib.import_module("keras.src.applications.imagenet_utils"), "obtain_input_shape", raise_default_size
    )
    with pytest.raises(DefaultSize) as raised:
        make(weights=None, include_top=True)
    assert raised.value.args == (TABLE[name].native_size,)


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "mobilenet_v3_large"])
def test_the_native_size_of_mobilenet_v3_matches_its_documentation(name):
    # These two have no default size in code: they take any, and their weights are those for this one.
    documentation = import_dotted(TABLE[name].class_).__doc__
    sizes = re.findall(r"resolution that is not\s+`\((\d+), (\d+), 3\)`", documentation)
    assert sizes == [(str(TABLE[name].native_size),) * 2]


@pytest.mark.parametrize("name", TABLE)
def test_preprocess_equals_keras_on_random_images(name):
    images = np.random.default_rng(0).uniform(0, 255, (2, 7, 5, 3)).astype(np.float32)
    expected = np.asarray(keras_module(name).preprocess_input(images.copy()))
    # Float32's own rounding: at 255 its steps are 1.5e-5.
    tolerance = 2e-5 if np.abs(expected).max() > 10 else 1e-6
    spec = ModelSpec.named(name, target_size=[7, 5, 3])
    np.testing.assert_allclose(spec.preprocess(images), expected, rtol=0, atol=tolerance)
    np.testing.assert_allclose(spec.preprocess(tf.constant(images)), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", TABLE)
def test_keras_refuses_one_pixel_less_than_the_minimum_size(name):
    min_size = TABLE[name].minimum_size
    for shape in ((min_size - 1, min_size, 3), (min_size, min_size - 1, 3)):
        with pytest.raises(ValueError, match=f"Input size must be at least {min_size}x{min_size}"):
            import_dotted(TABLE[name].class_)(include_top=False, weights=None, input_shape=shape)


@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v3_small", "vgg16"])
def test_keras_builds_a_model_of_the_minimum_size(name):
    min_size = minimum_size(TABLE[name].class_)
    model = import_dotted(TABLE[name].class_)(include_top=False, weights=None, input_shape=(min_size, min_size, 3))
    assert model.output_shape[1:3] == (1, 1)


@pytest.mark.parametrize("path", ["keras.applications.xception.Xception", "keras.applications.Xception"])
def test_the_minimum_size_is_found_by_every_public_path(path):
    assert minimum_size(path) == 71


@pytest.mark.parametrize("path", [None, "my_code.Xception", "keras.applications.imagenet_utils.Nothing"])
def test_other_classes_have_no_known_minimum_size(path):
    assert minimum_size(path) is None


@pytest.mark.parametrize(
    ("spelt", "name"),
    [
        ("resnet50v2", "resnet50_v2"),
        ("densenet121", "densenet_121"),
        ("mobilenet", "mobilenet_v1"),
        ("MobileNet", "mobilenet_v1"),
        ("ResNet152V2", "resnet152_v2"),
        ("efficientnet_v2_s", "efficientnetv2s"),
        ("EfficientNet-B0", "efficientnetb0"),
        ("vgg_16", "vgg16"),
        ("NASNetMobile", "nasnet_mobile"),
        ("convnexttiny", "convnext_tiny"),
    ],
)
def test_other_spellings_of_a_name_are_accepted(spelt, name):
    assert ModelSpec.named(spelt) == ModelSpec.named(name)


def test_an_unknown_name_is_an_error_with_the_nearest_one():
    with pytest.raises(ConfigError, match=r"got 'resnet5'. Did you mean 'resnet50'"):
        ModelSpec.named("resnet5")


def test_the_error_of_an_unrelated_name_says_where_models_are_listed():
    with pytest.raises(ConfigError, match="`model-trainer specs` lists them"):
        ModelSpec.named("zzzzz")


def test_overrides_replace_the_values_of_the_table():
    spec = ModelSpec.named("resnet50", target_size=[128, 96, 3], name="mine", klass="my_code.Net")
    assert (spec.target_size, spec.name, spec.class_) == ((128, 96, 3), "mine", "my_code.Net")
    assert spec.preprocess_func == "bgr_mean_subtraction"


def test_another_preprocess_func_drops_the_arguments_of_the_table():
    assert ModelSpec.named("vgg19", preprocess_func="between_plus_minus_1").preprocess_args is None
    with pytest.raises(ConfigError, match="`preprocess_args` should contain 3 numbers"):
        ModelSpec.named("vgg19", preprocess_func="mean_subtraction")


def test_a_misspelt_override_is_named():
    with pytest.raises(ConfigError, match=r"`target_sise` is not an option of ModelSpec. Did you mean 'target_size'"):
        ModelSpec.named("vgg19", target_sise=[32, 32, 3])


# Preprocessing that ImageNet weights were not trained with


@pytest.mark.parametrize("name", TABLE)
def test_the_preprocessing_of_the_table_is_not_a_mismatch(name):
    assert preprocessing_mismatch(ModelSpec.named(name)) is None


def test_train_model_declares_the_preprocessing_of_imagenet_weights():
    script = Path(__file__).parents[2] / "script" / "TrainModel.py"
    run = runpy.run_path(str(script), run_name="declared")["run"]
    assert preprocessing_mismatch(run.spec) is None
    assert run.spec.preprocess_func == "bgr_mean_subtraction"
    assert run.spec.preprocess_args == (123.68, 116.779, 103.939)


def test_an_earlier_default_of_train_model_is_a_mismatch_whose_message_names_the_correct_one():
    means = [103.939, 116.779, 123.68]
    spec = ModelSpec.named("vgg19", preprocess_func="mean_subtraction", preprocess_args=means)
    line = preprocessing_mismatch(spec)
    assert "\n" not in line
    assert VGG19 in line
    assert 'preprocess_func="bgr_mean_subtraction", preprocess_args=[123.68, 116.779, 103.939];' in line
    assert line.endswith('preprocess_func="mean_subtraction", preprocess_args=[103.939, 116.779, 123.68].')


@pytest.mark.parametrize(
    ("name", "function", "arguments"),
    [
        ("vgg19", "bgr_mean_subtraction", [103.939, 116.779, 123.68]),  # the order of BGR
        ("vgg19", "none", None),
        ("mobilenet_v1", "none", None),
        ("mobilenet_v1", "mean_subtraction", [103.939, 116.779, 123.68]),
        ("efficientnetb0", "between_plus_minus_1", None),
        ("densenet_121", "mean_std_normalization", [0.485, 0.456, 0.406, 0.229, 0.224, 0.225]),  # another scale
    ],
)
def test_a_real_difference_is_a_mismatch(name, function, arguments):
    spec = ModelSpec.named(name, preprocess_func=function, preprocess_args=arguments)
    assert preprocessing_mismatch(spec)


@pytest.mark.parametrize(
    ("name", "function", "arguments"),
    [
        ("vgg19", "keras.applications.vgg19.preprocess_input", None),
        ("mobilenet_v1", "mean_subtraction", [127.5, 127.5, 127.5]),
        # As keras-model-specs rounded it.
        ("densenet_121", "mean_std_normalization", [123.68, 116.779, 103.939, 58.4, 57.12, 57.38]),
    ],
)
def test_the_same_result_by_another_function_is_not_a_mismatch(name, function, arguments):
    spec = ModelSpec.named(name, preprocess_func=function, preprocess_args=arguments)
    assert preprocessing_mismatch(spec) is None


def test_the_class_is_recognized_by_every_public_path():
    assert preprocessing_mismatch(ModelSpec(**{"class": "keras.applications.VGG19"}, target_size=[64, 64, 3]))


@pytest.mark.parametrize("path", [None, "my_code.VGG19"])
def test_other_classes_have_no_mismatch(path):
    assert preprocessing_mismatch(ModelSpec(**{"class": path}, target_size=[64, 64, 3])) is None


def test_gray_images_have_no_mismatch_because_imagenet_has_no_weights_for_them():
    assert preprocessing_mismatch(ModelSpec(**{"class": VGG19}, target_size=[64, 64, 1])) is None


@pytest.mark.long
@pytest.mark.parametrize("name", ["mobilenet_v3_small", "efficientnetv2b0", "efficientnetv2s", "convnext_tiny"])
def test_without_its_own_rescaling_a_model_needs_the_equivalent_preprocessing(name):
    images = np.random.default_rng(0).uniform(0, 255, (1, 32, 32, 3)).astype(np.float32)
    network = import_dotted(TABLE[name].class_)(include_top=False, weights=None, input_shape=(32, 32, 3))
    x = network.inputs[0]
    for layer in network.layers[1:]:
        if not isinstance(layer, keras.layers.Rescaling | keras.layers.Normalization) and "prestem" not in layer.name:
            break
        x = layer.output
    expected = keras.Model(network.inputs[0], x)(images)
    longest = max((prefix for prefix in WITHOUT_OWN_RESCALING if name.startswith(prefix)), key=len)
    function, arguments = WITHOUT_OWN_RESCALING[longest]
    spec = ModelSpec.named(name, preprocess_func=function, preprocess_args=arguments, target_size=[32, 32, 3])
    np.testing.assert_allclose(spec.preprocess(images), expected, atol=1e-5)
    assert preprocessing_mismatch(spec)
    assert preprocessing_mismatch(spec.changed("kwargs", {"include_preprocessing": False})) is None
