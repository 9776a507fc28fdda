"""ModelSpec as a value: what it accepts and refuses, and how it is loaded and saved."""

import json
import subprocess
import sys

import numpy as np
import pytest

from model_trainer.errors import ConfigError, DataError, ModelFileError, StorageError
from model_trainer.specs import ModelSpec

VGG19 = "keras.applications.vgg19.VGG19"
DEFAULT = {
    "class": VGG19,
    "preprocess_func": "mean_subtraction",
    "preprocess_args": [103.939, 116.779, 123.68],
    "target_size": [224, 224, 3],
}


def test_importing_the_specs_and_declaring_one_loads_neither_tensorflow_nor_keras():
    code = (
        "import sys; from model_trainer.specs import ModelSpec, minimum_size, preprocessing_mismatch\n"
        "spec = ModelSpec.named('vgg19', preprocess_func='none'); minimum_size(spec.class_)\n"
        "assert preprocessing_mismatch(spec)\n"
        "print([name for name in ('tensorflow', 'keras') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_projects_default_is_read_with_class_as_a_keyword():
    spec = ModelSpec(**DEFAULT)
    assert spec.class_ == VGG19
    assert spec.preprocess_args == (103.939, 116.779, 123.68)
    assert spec.target_size == (224, 224, 3)
    assert (spec.resize, spec.interpolation, spec.background) == ("crop", "bilinear", (255, 255, 255))
    assert (spec.name, spec.kwargs) == (None, {})


def test_a_spec_without_a_class_is_possible_for_runs_with_their_own_network():
    assert ModelSpec(target_size=[32, 32, 1]).class_ is None


def test_the_dict_has_the_key_class_and_gives_the_same_spec_through_json():
    spec = ModelSpec(**DEFAULT, kwargs={"alpha": 0.5}, resize="pad", background=[0, 0, 0])
    written = json.loads(json.dumps(spec.to_dict()))
    assert {key: written[key] for key in DEFAULT} == DEFAULT
    assert "class_" not in written
    assert ModelSpec.from_dict(written) == spec


@pytest.mark.parametrize("older", ["model", "klass"])
def test_older_names_of_class_are_accepted(older):
    assert ModelSpec(**{older: VGG19}, target_size=[32, 32, 3]).class_ == VGG19


def test_class_and_an_older_name_together_are_refused():
    with pytest.raises(ConfigError, match=r"`klass` is an older name of `class`"):
        ModelSpec(**{"class": VGG19, "klass": VGG19}, target_size=[32, 32, 3])


@pytest.mark.parametrize(
    ("older", "today"),
    [
        ("keras_applications.resnet.ResNet101", "keras.applications.resnet.ResNet101"),
        ("tensorflow.keras.applications.vgg19.VGG19", VGG19),
        ("tensorflow.python.keras.applications.resnet_v2.ResNet50V2", "keras.applications.resnet_v2.ResNet50V2"),
        ("keras_applications.mobilenet_v3.MobileNetV3Small", "keras.applications.MobileNetV3Small"),
        ("keras.applications.mobilenet_v3.MobileNetV3Large", "keras.applications.MobileNetV3Large"),
        ("keras.src.applications.xception.Xception", "keras.applications.xception.Xception"),
        ("keras_applications.resnext.ResNeXt50", "keras.applications.resnext.ResNeXt50"),
        ("keras.applications.VGG19", "keras.applications.VGG19"),
        ("my_code.nets.Small", "my_code.nets.Small"),
    ],
)
def test_older_modules_of_the_class_are_accepted(older, today):
    assert ModelSpec(**{"class": older}, target_size=[32, 32, 3]).class_ == today


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target_size": [224, 224]}, r"`target_size` should be three positive integers .* got \[224, 224\]"),
        ({"target_size": [224, 0, 3]}, "`target_size` should be three positive integers"),
        ({"target_size": [224, 224.5, 3]}, "`target_size` should be three positive integers"),
        ({"target_size": [224, True, 3]}, "`target_size` should be three positive integers"),
        ({"target_size": "224"}, "`target_size` should be three positive integers"),
        ({"class": "VGG19"}, r"`class` should be a dotted path .*ModelSpec.named\('vgg19'\)"),
        ({"class": "no path.at all"}, "`class` should be a dotted path"),
        ({"preprocess_func": "mean_substraction"}, "`preprocess_func` .*Did you mean 'mean_subtraction'"),
        ({"preprocess_args": None}, r"`preprocess_args` should contain 3 numbers .* got none"),
        ({"preprocess_args": [1, 2]}, r"`preprocess_args` should contain 3 numbers .* got 2: \[1, 2\]"),
        ({"preprocess_args": 103.9}, "`preprocess_args` should be a list"),
        ({"preprocess_args": [1, 2, "x"]}, "`preprocess_args.2` should be a number"),
        ({"preprocess_args": [1, 2, float("nan")]}, "`preprocess_args.2` should be a finite number"),
        ({"preprocess_func": "none"}, "`preprocess_args` should be left out for none"),
        ({"preprocess_func": "mean_std_normalization"}, "`preprocess_args` should contain 6 numbers"),
        (
            {"preprocess_func": "mean_std_normalization", "preprocess_args": [0, 0, 0, 1, 0, 1]},
            "`preprocess_args` should end in standard deviations above 0",
        ),
        ({"target_size": [32, 32, 1]}, "`preprocess_args` should contain 1 number .*between_plus_minus_1"),
        ({"resize": "crp"}, "`resize` should be one of 'crop', 'squash' or 'pad', got 'crp'"),
        ({"interpolation": "linear"}, "`interpolation` should be one of"),
        ({"background": [0, 0, 256]}, "`background` should be a color"),
        ({"background": "white"}, "`background` should be a color"),
        ({"clas": VGG19}, "`clas` is not an option of ModelSpec. Did you mean 'class'"),
    ],
)
def test_an_invalid_value_is_refused_with_the_name_of_its_field(change, message):
    with pytest.raises(ConfigError, match=message):
        ModelSpec(**(DEFAULT | change))


def test_a_missing_target_size_is_named():
    with pytest.raises(ConfigError, match="`target_size` is missing"):
        ModelSpec(**{"class": VGG19})


@pytest.mark.parametrize(
    ("function", "channels", "arguments"),
    [
        ("mean_subtraction", 1, [117.0]),
        ("mean_subtraction_plus_minus_1", 4, [1, 2, 3, 4]),
        ("bgr_mean_subtraction", 3, [1, 2, 3]),
        ("mean_std_normalization", 1, [117.0, 58.0]),
        ("mean_std_normalization", 4, [1, 2, 3, 4, 5, 6, 7, 8]),
        ("between_plus_minus_1", 4, []),
        ("my_code.prepare", 3, [1, 2, 3, 4, 5]),
    ],
)
def test_the_number_of_arguments_depends_on_the_number_of_channels(function, channels, arguments):
    spec = ModelSpec(target_size=[8, 8, channels], preprocess_func=function, preprocess_args=arguments)
    assert list(spec.preprocess_args or ()) == arguments


def test_numpy_numbers_are_accepted_as_a_size():
    assert ModelSpec(target_size=tuple(np.array([32, 48, 3]))).to_dict()["target_size"] == [32, 48, 3]


def test_a_preprocess_func_without_arguments_replaces_one_with_arguments_in_one_change():
    changed = ModelSpec(**DEFAULT).changed("preprocess_func", "between_plus_minus_1")
    assert (changed.preprocess_func, changed.preprocess_args) == ("between_plus_minus_1", None)
    assert changed.changed("target_size", [64, 64, 1]).target_size == (64, 64, 1)


def test_a_change_keeps_the_other_fields():
    changed = ModelSpec(**DEFAULT).changed("target_size", [64, 64, 3])
    assert changed == ModelSpec(**(DEFAULT | {"target_size": [64, 64, 3]}))


def test_preprocess_refuses_images_of_another_number_of_channels():
    with pytest.raises(DataError, match=r"should end in 3 channels, as in target_size, got \(8, 8, 1\)"):
        ModelSpec(**DEFAULT).preprocess(np.zeros((8, 8, 1), np.uint8))


def test_preprocess_refuses_a_list():
    with pytest.raises(DataError, match="takes a NumPy array or a tensor, got a list"):
        ModelSpec(**DEFAULT).preprocess([[1, 2, 3]])


# Files


def write(folder, data):
    path = folder / "model_spec.json"
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


def test_a_file_of_keras_model_specs_loads(tmp_path):
    # As ModelSpec.as_json of keras-model-specs wrote it.
    path = write(
        tmp_path,
        {
            "name": "resnet101",
            "klass": "keras_applications.resnet.ResNet101",
            "target_size": [224, 224, 3],
            "preprocess_func": "bgr_mean_subtraction",
            "preprocess_args": [123.68, 116.779, 103.939],
        },
    )
    assert ModelSpec.load(path) == ModelSpec.named("resnet101")


def test_a_file_of_keras_model_specs_without_arguments_loads(tmp_path):
    written = {
        "name": "mobilenet_v1",
        "klass": "keras.applications.mobilenet.MobileNet",
        "target_size": [224, 224, 3],
        "preprocess_func": "between_plus_minus_1",
        "preprocess_args": None,
    }
    assert ModelSpec.load(write(tmp_path, written)) == ModelSpec.named("mobilenet_v1")


def test_arguments_that_keras_model_specs_ignored_are_ignored_on_load(tmp_path):
    written = {"target_size": [8, 8, 3], "preprocess_func": "between_plus_minus_1", "preprocess_args": [1, 2, 3]}
    assert ModelSpec.load(write(tmp_path, written)).preprocess_args is None


def test_a_file_that_keras_model_specs_wrote_without_a_function_loads(tmp_path):
    written = {"name": None, "klass": None, "target_size": [8, 8, 3], "preprocess_func": None, "preprocess_args": None}
    assert ModelSpec.load(write(tmp_path, written)) == ModelSpec(target_size=[8, 8, 3])


def test_further_keys_of_a_model_spec_file_are_ignored_on_load_only(tmp_path):
    spec = ModelSpec(**DEFAULT, resize="squash")
    more = {"format": 1, "task": {}, "head": {}, "network": {}, "classes": ["a", "b"], "thresholds": None}
    assert ModelSpec.load(write(tmp_path, spec.to_dict() | more)) == spec
    with pytest.raises(ConfigError, match="is not an option of ModelSpec"):
        ModelSpec.from_dict(spec.to_dict() | more)


@pytest.mark.parametrize("field", ["class", "preprocess_func"])
def test_a_file_may_name_foreign_code_only_when_it_is_trusted(tmp_path, field):
    path = write(tmp_path, {"target_size": [8, 8, 3], field: "os.system"})
    with pytest.raises(ModelFileError, match=rf"{path}: `{field}` names os.system.*--trust"):
        ModelSpec.load(path)
    assert ModelSpec.load(path, trust=True).to_dict()[field] == "os.system"


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(StorageError, match=r"model_spec.json could not be read: No such file"):
        ModelSpec.load(tmp_path / "model_spec.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not a JSON file"),
        ("[1]", "should contain a JSON object with a spec, got a list"),
        ('{"target_size": [8, 8]}', "model_spec.json: `target_size` should be three positive integers"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, content, message):
    with pytest.raises(ModelFileError, match=message):
        ModelSpec.load(write(tmp_path, content))
