"""Times ONNX Runtime on the built-in model's own ONNX files, for comparison with `kiln bench`.

    pip install onnxruntime numpy && python benches/time_onnxruntime.py [THREADS]
"""

import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime

MODEL = Path(__file__).parent.parent / "models/emoji"
RUNS = 50


def best(part, inputs, threads):
    """The least milliseconds of RUNS evaluations."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    path = str(MODEL / part / "model.onnx")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    session.run(None, inputs)
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        session.run(None, inputs)
        times.append(time.perf_counter() - start)
    return 1e3 * min(times)


def main():
    threads = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    random = np.random.default_rng(0)
    normal = lambda *shape: random.standard_normal(shape, dtype=np.float32)
    unet = {"sample": normal(1, 4, 32, 32), "timestep": np.array([500]), "encoder_hidden_states": normal(1, 77, 128)}
    print(f"unet         {best('unet', unet, threads):6.2f} ms")
    print(f"vae_decoder  {best('vae_decoder', {'latent_sample': normal(1, 4, 32, 32)}, threads):6.2f} ms")


main()
