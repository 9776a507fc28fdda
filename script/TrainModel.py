#!/usr/bin/env python3
"""Trains an image classifier. Edit this file, then run it: script/train

    script/train                              train on data/train/CLASS/ and data/val/CLASS/
    script/train --sample                     train on the built-in photos of clothes, about five minutes
    script/train --set training.epochs=30     change one option for this time; repeatable
    script/train --resume                     continue the newest run of this name
    script/train --help

Models, logs and history are written to output/<name>-<date>-<time>/.
"""

from model_trainer import (
    Adam,
    Classification,
    Cosine,
    Hardware,
    ImageFolder,
    ModelSpec,
    Network,
    RandomFlip,
    RandomResizedCrop,
    Run,
    Training,
)
from model_trainer.cli.script import main

run = Run(
    # 1. A name, which the name of the output folder starts with.
    name="vgg19",
    # 2. The backbone and its preprocessing. `model-trainer specs` lists all of them, and
    #    ModelSpec.named("resnet50", target_size=(128, 128, 3)) looks one up.
    spec=ModelSpec(
        **{
            "class": "keras.applications.vgg19.VGG19",
            "preprocess_func": "bgr_mean_subtraction",
            "preprocess_args": [123.68, 116.779, 103.939],
            "target_size": [224, 224, 3],
        }
    ),
    # 3. Its initial weights: "imagenet"; None for random ones; a file (.hdf5, .h5, .keras, .weights.h5);
    #    "auto" uses ImageNet's where they are available.
    weights="auto",
    # 4. The head on top: pooling of the feature maps ("avg", "max", "flatten"), hidden layers such as (256,),
    #    dropout. Layers to `freeze`: "none", "backbone", or names such as ("block1_*", "block2_*").
    network=Network(pooling="avg", dense=(), dropout_rate=0.2, freeze="none"),
    # 5. The images, in one folder per class. Without a validation folder:
    #    train_data, val_data = ImageFolder("data/train").split(val=0.1)
    #    Other data: Manifest("data/train.csv"), RecordIO("data/train.rec"), TFRecords("data/*.tfrecord"),
    #    Tfds("cifar10"); see docs/data.md. `model-trainer doctor data` reports what is wrong with the data.
    train_data=ImageFolder("data/train"),
    val_data=ImageFolder("data/val"),
    # 6. Random augmentation of the training images; () for none, only the spec's `resize`. There are also
    #    RandomRotation(), RandAugment(), MixUp() and more; `model-trainer preview script/TrainModel.py` shows them.
    augment=(RandomResizedCrop(area=(0.35, 1.0)), RandomFlip(horizontal=True, vertical=False)),
    # 7. The task: loss, metrics and head. class_weights="balanced" helps when classes differ much in size;
    #    metrics=(Accuracy(), TopK(5), MacroRecall()) reports more. MultiLabel() learns any number of tags per image.
    task=Classification(label_smoothing=0.0, class_weights=None),
    # 8. Optimization.
    training=Training(
        epochs=2,
        batch_size=32,  # images per step, on all devices together
        learning_rate=1e-4,
        optimizer=Adam(),  # SGD(momentum=0.9, nesterov=True), AdamW(), RMSprop(), Lion(), LAMB()
        schedule=Cosine(),  # Constant(), StepDecay(), Exponential(), Polynomial(), ReduceOnPlateau()
        precision="auto",  # "float32", "mixed_bfloat16", "mixed_float16"
        seed=0,
        deterministic=False,  # True: bit-identical weights from the same run, somewhat slower
    ),
    # 9. Devices: every GPU of this machine, or a number of them.
    hardware=Hardware(devices="auto"),
    # 10. EarlyStopping(patience=5), or any keras.callbacks.Callback.
    callbacks=(),
    output_dir="output",
)

# --sample: the same network on small images, from random weights, on 2,000 photos of clothes.
sample = (
    run.changed("name", "sample")
    .changed("spec.target_size", [64, 64, 3])
    .changed("weights", None)
    .changed("train_data", ImageFolder("data/sample/train"))
    .changed("val_data", ImageFolder("data/sample/val"))
    .changed("augment", (RandomFlip(),))
    .changed("training.epochs", 5)
    .changed("training.learning_rate", 1.5e-4)
    .changed("training.schedule", Cosine(warmup_epochs=0.5))
)

# `model-trainer train script/TrainModel.py` imports this file for its `run`; importing must not train.
if __name__ == "__main__":
    main(run, sample=sample)
