"""The table of all `keras.applications` models: class, native size, ImageNet preprocessing and minimum size.

The names are those of keras-model-specs, if it has one. A test compares the table with the installed Keras.
"""

from __future__ import annotations

from typing import NamedTuple

from model_trainer.errors import ConfigError
from model_trainer.messages import nearest

__all__ = [
    "TABLE",
    "TableEntry",
    "canonical_class",
    "entry_of_class",
    "minimum_size",
    "table_name",
    "table_name_inside",
    "without_own_rescaling",
]


class Preprocessing(NamedTuple):
    """A preprocess function and its arguments."""

    function: str
    arguments: tuple[float, ...] | None = None


class TableEntry(NamedTuple):
    """One model of `keras.applications`.

    Attributes:
        class_: dotted path.
        native_size: height and width of the images that its ImageNet weights were trained on, in pixels.
        preprocessing: of its ImageNet weights.
        minimum_size: minimum height and width that Keras accepts without the top, in pixels.
    """

    class_: str
    native_size: int
    preprocessing: Preprocessing
    minimum_size: int


NONE = Preprocessing("none")  # the model starts with its own rescaling
TF = Preprocessing("between_plus_minus_1")
CAFFE = Preprocessing("bgr_mean_subtraction", (123.68, 116.779, 103.939))
# Keras' means and standard deviations of 0.485 ... 0.225 times 255.
TORCH = Preprocessing("mean_std_normalization", (123.675, 116.28, 103.53, 58.395, 57.12, 57.375))
AROUND_128 = Preprocessing("mean_std_normalization", (128.0,) * 6)

# Keras exports the two MobileNetV3 classes from keras.applications only, not from their module.
# fmt: off
TABLE: dict[str, TableEntry] = {
    "convnext_base":       TableEntry("keras.applications.convnext.ConvNeXtBase", 224, NONE, 32),
    "convnext_large":      TableEntry("keras.applications.convnext.ConvNeXtLarge", 224, NONE, 32),
    "convnext_small":      TableEntry("keras.applications.convnext.ConvNeXtSmall", 224, NONE, 32),
    "convnext_tiny":       TableEntry("keras.applications.convnext.ConvNeXtTiny", 224, NONE, 32),
    "convnext_xlarge":     TableEntry("keras.applications.convnext.ConvNeXtXLarge", 224, NONE, 32),
    "densenet_121":        TableEntry("keras.applications.densenet.DenseNet121", 224, TORCH, 32),
    "densenet_169":        TableEntry("keras.applications.densenet.DenseNet169", 224, TORCH, 32),
    "densenet_201":        TableEntry("keras.applications.densenet.DenseNet201", 224, TORCH, 32),
    "efficientnetb0":      TableEntry("keras.applications.efficientnet.EfficientNetB0", 224, NONE, 32),
    "efficientnetb1":      TableEntry("keras.applications.efficientnet.EfficientNetB1", 240, NONE, 32),
    "efficientnetb2":      TableEntry("keras.applications.efficientnet.EfficientNetB2", 260, NONE, 32),
    "efficientnetb3":      TableEntry("keras.applications.efficientnet.EfficientNetB3", 300, NONE, 32),
    "efficientnetb4":      TableEntry("keras.applications.efficientnet.EfficientNetB4", 380, NONE, 32),
    "efficientnetb5":      TableEntry("keras.applications.efficientnet.EfficientNetB5", 456, NONE, 32),
    "efficientnetb6":      TableEntry("keras.applications.efficientnet.EfficientNetB6", 528, NONE, 32),
    "efficientnetb7":      TableEntry("keras.applications.efficientnet.EfficientNetB7", 600, NONE, 32),
    "efficientnetv2b0":    TableEntry("keras.applications.efficientnet_v2.EfficientNetV2B0", 224, NONE, 32),
    "efficientnetv2b1":    TableEntry("keras.applications.efficientnet_v2.EfficientNetV2B1", 240, NONE, 32),
    "efficientnetv2b2":    TableEntry("keras.applications.efficientnet_v2.EfficientNetV2B2", 260, NONE, 32),
    "efficientnetv2b3":    TableEntry("keras.applications.efficientnet_v2.EfficientNetV2B3", 300, NONE, 32),
    "efficientnetv2l":     TableEntry("keras.applications.efficientnet_v2.EfficientNetV2L", 480, NONE, 32),
    "efficientnetv2m":     TableEntry("keras.applications.efficientnet_v2.EfficientNetV2M", 480, NONE, 32),
    "efficientnetv2s":     TableEntry("keras.applications.efficientnet_v2.EfficientNetV2S", 384, NONE, 32),
    "inception_resnet_v2": TableEntry("keras.applications.inception_resnet_v2.InceptionResNetV2", 299, TF, 75),
    "inception_v3":        TableEntry("keras.applications.inception_v3.InceptionV3", 299, TF, 75),
    "mobilenet_v1":        TableEntry("keras.applications.mobilenet.MobileNet", 224, TF, 32),
    "mobilenet_v2":        TableEntry("keras.applications.mobilenet_v2.MobileNetV2", 224, TF, 32),
    "mobilenet_v3_large":  TableEntry("keras.applications.MobileNetV3Large", 224, NONE, 32),
    "mobilenet_v3_small":  TableEntry("keras.applications.MobileNetV3Small", 224, NONE, 32),
    "nasnet_large":        TableEntry("keras.applications.nasnet.NASNetLarge", 331, TF, 32),
    "nasnet_mobile":       TableEntry("keras.applications.nasnet.NASNetMobile", 224, TF, 32),
    "resnet50":            TableEntry("keras.applications.resnet50.ResNet50", 224, CAFFE, 32),
    "resnet101":           TableEntry("keras.applications.resnet.ResNet101", 224, CAFFE, 32),
    "resnet152":           TableEntry("keras.applications.resnet.ResNet152", 224, CAFFE, 32),
    "resnet50_v2":         TableEntry("keras.applications.resnet_v2.ResNet50V2", 224, TF, 32),
    "resnet101_v2":        TableEntry("keras.applications.resnet_v2.ResNet101V2", 224, TF, 32),
    "resnet152_v2":        TableEntry("keras.applications.resnet_v2.ResNet152V2", 224, TF, 32),
    "vgg16":               TableEntry("keras.applications.vgg16.VGG16", 224, CAFFE, 32),
    "vgg19":               TableEntry("keras.applications.vgg19.VGG19", 224, CAFFE, 32),
    "xception":            TableEntry("keras.applications.xception.Xception", 299, TF, 71),
}
# fmt: on

# The preprocessing, instead of NONE, of models with `include_preprocessing=False` in their kwargs, by the prefix of the
# name; the longest prefix applies.
WITHOUT_OWN_RESCALING = {
    "convnext_": TORCH,
    "efficientnetv2": AROUND_128,
    "efficientnetv2b": TORCH,
    "mobilenet_v3_": TF,
}

# Modules of these classes in older packages, and the private one in the installed Keras. keras-model-specs wrote the
# first three.
_OLD_MODULES = (
    "keras_applications.",
    "tensorflow.keras.applications.",
    "tensorflow.python.keras.applications.",
    "keras.src.applications.",
)


def table_name(name: str) -> str:
    """The key of a model in `TABLE`.

    Case, underscores and hyphens are ignored, and class names are accepted: `ResNet50V2` is `resnet50_v2`, `mobilenet`
    is `mobilenet_v1`.

    Raises:
        ConfigError: the table has no such model; the message suggests the nearest name.

    Example:
        >>> table_name("ResNet50V2")
        'resnet50_v2'
    """
    spellings = {_squeezed(_last(entry.class_)): key for key, entry in TABLE.items()}
    spellings |= {_squeezed(key): key for key in TABLE}
    match = spellings.get(_squeezed(name))
    if match is None:
        guess = nearest(name, TABLE) or " `model-trainer specs` lists them."
        raise ConfigError(f"should be a model of keras.applications, got {name!r}.{guess}", "name")
    return match


def table_name_inside(name: str) -> str | None:
    """The key of the model that is a prefix of a name such as "mobilenetv2_1.00_160"; None if there is none."""
    squeezed = _squeezed(name)
    spellings = {_squeezed(_last(entry.class_)): key for key, entry in TABLE.items()}
    spellings |= {_squeezed(key): key for key in TABLE}
    matches = [spelling for spelling in spellings if squeezed.startswith(spelling)]
    return spellings[max(matches, key=len)] if matches else None


def without_own_rescaling(name: str) -> Preprocessing | None:
    """The preprocessing of a model with `include_preprocessing=False`; None if it has no such option."""
    prefixes = [prefix for prefix in WITHOUT_OWN_RESCALING if name.startswith(prefix)]
    return WITHOUT_OWN_RESCALING[max(prefixes, key=len)] if prefixes else None


def entry_of_class(class_path: str | None) -> tuple[str, TableEntry] | None:
    """The key and entry of a class by any of its public paths in Keras; None for other classes."""
    if class_path is None or not class_path.startswith("keras.applications."):
        return None
    for name, entry in TABLE.items():
        if _last(entry.class_) == _last(class_path):
            return name, entry
    return None


def minimum_size(class_path: str | None) -> int | None:
    """The minimum height and width, in pixels, that a class accepts without its top; None if unknown."""
    entry = entry_of_class(class_path)
    return entry[1].minimum_size if entry else None


def canonical_class(path: str) -> str:
    """Replaces the modules of older packages in a class path by those of the installed Keras.

    `keras_applications.resnet.ResNet101` becomes `keras.applications.resnet.ResNet101`; other paths stay unchanged.
    """
    for old in _OLD_MODULES:
        if path.startswith(old):
            path = "keras.applications." + path.removeprefix(old)
            entry = entry_of_class(path)
            return entry[1].class_ if entry else path
    if path.startswith("keras.applications.mobilenet_v3."):
        entry = entry_of_class(path)
        return entry[1].class_ if entry else path
    return path


def _last(path: str) -> str:
    return path.rpartition(".")[2]


def _squeezed(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "").replace(" ", "")
