"""Does TensorFlow see the GPU, and does it compute correctly and fast?

    .venv/bin/python script/GPUtest.py [--json]

Takes a few seconds, and some more for each GPU. Prints the versions, the CUDA that TensorFlow was built for and the
CUDA of this machine, and for each GPU whether matrix products and convolutions agree with the CPU's, with their
TFLOP/s. The exit code is 0 when at least one GPU computes correctly, and 1 when none does, with the reason and a fix.
"""

import argparse
import sys

from model_trainer.diagnosis.gpu import main

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Does TensorFlow see the GPU, and does it compute correctly and fast?")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    sys.exit(main(as_json=parser.parse_args().json))
