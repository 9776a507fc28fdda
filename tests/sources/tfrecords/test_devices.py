from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.long

PROGRAM = """
import sys
import tensorflow as tf
from model_trainer.sources.tfrecords import TFRecords

features = {
    "image/encoded": tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"x"])),
    "image/class/label": tf.train.Feature(int64_list=tf.train.Int64List(value=[0])),
}
with tf.io.TFRecordWriter(sys.argv[1]) as writer:
    writer.write(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())
assert TFRecords(sys.argv[1]).read().images.read(0) == b"x"
# TensorFlow refuses this once anything has computed.
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
"""


@pytest.mark.slow
def test_devices_can_still_be_configured_after_reading_tfrecords(tmp_path: Path) -> None:
    environment = {**os.environ, "MODEL_TRAINER_CACHE": str(tmp_path)}
    subprocess.run([sys.executable, "-c", PROGRAM, str(tmp_path / "a.tfrecord")], check=True, env=environment)
