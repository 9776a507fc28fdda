"""A process in which `model_trainer` cannot be imported: it loads a `.hdf5` with Keras alone, and answers.

One line of JSON for each job, `{"model": path, "images": path, "answers": path}`; a line "done", or the error, back.
"""

import json
import sys

sys.modules["model_trainer"] = None  # type: ignore[assignment]

import keras  # noqa: E402
import numpy as np  # noqa: E402

for line in sys.stdin:
    job = json.loads(line)
    try:
        outputs = keras.models.load_model(job["model"], compile=False)(np.load(job["images"]), training=False)
        outputs = outputs if isinstance(outputs, (list, tuple)) else [outputs]
        np.savez(job["answers"], *[keras.ops.convert_to_numpy(output) for output in outputs])
        answer = "done"
    except Exception as error:  # noqa: BLE001 - the test that waits shows it
        answer = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    print(answer, flush=True)
