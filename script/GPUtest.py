"""Does TensorFlow see the GPU, and does it compute rightly and fast.

    .venv/bin/python script/GPUtest.py [--json]

It takes a few seconds, and some more for each GPU. It prints the versions, the CUDA that TensorFlow was built for and
the CUDA of this machine, and for each GPU whether products and convolutions agree with the CPU's, with their TFLOP/s.
It ends with 0 when at least one GPU computes rightly, and with 1 when none does: then it says why, and what cures it.
"""

import argparse
import sys

from model_trainer.diagnosis.gpu import main

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Does TensorFlow see the GPU, and does it compute rightly and fast.")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    sys.exit(main(as_json=parser.parse_args().json))
