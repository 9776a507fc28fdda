"""The preprocess functions against NumPy's float64, eagerly, in a graph and in tf.data."""

import textwrap

import numpy as np
import pytest
import tensorflow as tf

from model_trainer.errors import ConfigError, DataError
from model_trainer.specs import ModelSpec

MEANS = [123.68, 116.779, 103.939]
STDS = [58.395, 57.12, 57.375]
# Each formula a second time, in float64.
FORMULAS = {
    "none": ([], lambda x: x),
    "between_plus_minus_1": ([], lambda x: x / 127.5 - 1),
    "mean_subtraction": (MEANS, lambda x: (x - np.array(MEANS)) / 127.5),
    "mean_subtraction_plus_minus_1": (MEANS, lambda x: (x - np.array(MEANS)) / 255),
    "bgr_mean_subtraction": (MEANS, lambda x: np.flip(x - np.array(MEANS), -1)),
    "mean_std_normalization": (MEANS + STDS, lambda x: (x - np.array(MEANS)) / np.array(STDS)),
}

OWN = """
    import numpy as np
    import tensorflow as tf

    def with_operators(images, low, high):
        return (images - low) / (high - low)

    def in_place(images, mean):
        images[..., 0] -= mean
        return images

    def for_numpy(images):
        return np.clip(images.astype("float64"), 50, 100)

    def for_tensors(images):
        images.get_shape()  # which arrays do not have
        return tf.clip_by_value(images, 50.0, 100.0)

    def half(images):
        return images[..., ::2, :, :]

    number = 3
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The user's own module `own_preprocess`, importable."""
    (tmp_path / "own_preprocess.py").write_text(textwrap.dedent(OWN))
    monkeypatch.syspath_prepend(tmp_path)
    yield
    monkeypatch.delitem(__import__("sys").modules, "own_preprocess", raising=False)


def images(shape=(2, 6, 5, 3), dtype=np.uint8):
    return np.random.default_rng(0).integers(0, 256, shape).astype(dtype)


def eagerly(spec, array):
    return spec.preprocess(tf.constant(array))


def in_a_graph(spec, array):
    return tf.function(spec.preprocess)(tf.constant(array))


def compiled(spec, array):
    return tf.function(spec.preprocess, jit_compile=True)(tf.constant(array))


def in_tf_data(spec, array):
    return next(iter(tf.data.Dataset.from_tensors(array).map(spec.preprocess)))


def of_unknown_rank(spec, array):
    return tf.function(spec.preprocess, input_signature=[tf.TensorSpec(None, array.dtype)])(tf.constant(array))


EXECUTION_MODES = [eagerly, in_a_graph, in_tf_data, of_unknown_rank]


def make(function, arguments=(), channels=3):
    return ModelSpec(target_size=[6, 5, channels], preprocess_func=function, preprocess_args=arguments)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
@pytest.mark.parametrize("function", FORMULAS)
def test_arrays_follow_the_formula_and_are_not_modified(function, dtype):
    arguments, formula = FORMULAS[function]
    array = images(dtype=dtype)
    before = array.copy()
    result = make(function, arguments).preprocess(array)
    assert type(result) is np.ndarray
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, formula(before.astype(np.float64)), rtol=0, atol=2e-5)
    np.testing.assert_array_equal(array, before)
    assert not np.shares_memory(result, array)
    assert result.flags.c_contiguous


@pytest.mark.parametrize("execute", [*EXECUTION_MODES, compiled])
@pytest.mark.parametrize("function", FORMULAS)
def test_tensors_follow_the_formula_in_every_execution_mode(function, execute):
    arguments, formula = FORMULAS[function]
    result = execute(make(function, arguments), images())
    assert tf.is_tensor(result)
    assert result.dtype == tf.float32
    np.testing.assert_allclose(result, formula(images().astype(np.float64)), rtol=0, atol=2e-5)


@pytest.mark.parametrize("shape", [(6, 5, 3), (2, 6, 5, 3), (2, 2, 6, 5, 3)])
def test_any_shape_that_ends_in_channels_is_accepted(shape):
    arguments, formula = FORMULAS["bgr_mean_subtraction"]
    result = make("bgr_mean_subtraction", arguments).preprocess(images(shape))
    np.testing.assert_allclose(result, formula(images(shape).astype(np.float64)), rtol=0, atol=2e-5)


def test_a_gray_image_takes_one_mean():
    result = make("mean_subtraction", [100.0], channels=1).preprocess(images((6, 5, 1)))
    np.testing.assert_allclose(result, (images((6, 5, 1)) - 100.0) / 127.5, rtol=0, atol=1e-6)


def test_a_graph_keeps_the_static_shape():
    dataset = tf.data.Dataset.from_tensors(images()).map(make("bgr_mean_subtraction", MEANS).preprocess)
    assert dataset.element_spec == tf.TensorSpec((2, 6, 5, 3), tf.float32)


def test_a_tensor_of_another_number_of_channels_is_refused():
    with pytest.raises(DataError, match=r"should end in 3 channels, as in target_size, got \(6, 5, 1\)"):
        make("none").preprocess(tf.zeros((6, 5, 1)))


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("function", "arguments", "formula"),
    [
        ("with_operators", [10, 20], lambda x: (x - 10) / 10),
        ("in_place", [7], lambda x: x - np.array([7, 0, 0])),
        ("for_numpy", [], lambda x: np.clip(x, 50, 100)),
        ("for_tensors", [], lambda x: np.clip(x, 50, 100)),
    ],
)
class TestTheUsersOwnFunction:
    def test_works_on_arrays_without_modifying_them(self, function, arguments, formula):
        array = images(dtype=np.float32)
        result = make(f"own_preprocess.{function}", arguments).preprocess(array)
        assert type(result) is np.ndarray
        assert result.dtype == np.float32
        np.testing.assert_allclose(result, formula(images().astype(np.float64)), rtol=1e-6)
        np.testing.assert_array_equal(array, images(dtype=np.float32))

    @pytest.mark.parametrize("execute", EXECUTION_MODES)
    def test_works_on_tensors_in_every_execution_mode(self, function, arguments, formula, execute):
        result = execute(make(f"own_preprocess.{function}", arguments), images())
        assert tf.is_tensor(result)
        assert result.dtype == tf.float32
        np.testing.assert_allclose(result, formula(images().astype(np.float64)), rtol=1e-6)


def test_a_preprocess_function_of_keras_is_called_by_its_dotted_path():
    array = images(dtype=np.float32)
    result = make("keras.applications.vgg19.preprocess_input").preprocess(array)
    np.testing.assert_allclose(result, FORMULAS["bgr_mean_subtraction"][1](images().astype(np.float64)), atol=2e-5)
    np.testing.assert_array_equal(array, images(dtype=np.float32))


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        ("own_preprocess.missing", [], "own_preprocess has no 'missing'"),
        ("own_preprocess.number", [], "own_preprocess.number is not a function but int"),
        ("own_preprocess.in_place", [1, 2], "`preprocess_args` do not fit own_preprocess.in_place.*too many"),
        ("own_preprocess.half", [], "own_preprocess.half should keep the images' shape"),
    ],
)
@pytest.mark.parametrize("convert", [np.asarray, tf.constant])
def test_a_function_that_cannot_be_used_is_named(function, arguments, message, convert):
    with pytest.raises(ConfigError, match=message):
        make(function, arguments).preprocess(convert(images()))
