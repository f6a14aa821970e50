"""Times Kiln and its peers by turns in one run and prints the ratios; see README.md beside it."""

import argparse
import json
import resource
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np

GRAPHS = {
    "text_encoder": lambda normal: {"input_ids": np.zeros((1, 77), np.int64)},
    "unet": lambda normal: {
        "sample": normal(1, 4, 64, 64),
        "timestep": np.array([500]),
        "encoder_hidden_states": normal(1, 77, 768),
    },
    "vae_decoder": lambda normal: {"latent_sample": normal(1, 4, 64, 64)},
}


class Kiln:
    """A turn is a process of its own, which runs the graph once before it counts."""

    name = "kiln"

    def __init__(self, args, graph):
        self.command = [args.kiln, "bench", args.package, "--json", "--lanes", "1", "--runs", str(args.runs)]
        self.command += ["--threads", str(args.threads), "--graph", graph]
        self.graph = graph

    def turn(self):
        said = subprocess.run(self.command, check=True, capture_output=True).stdout
        measured = json.loads(said)[self.graph]
        return measured["least_seconds"], measured["processor_seconds"]


class InProcess:
    """A peer that is a library here."""

    def turn(self):
        measured = sorted(self.measure() for _ in range(self.runs))
        return measured[0][0], measured[len(measured) // 2][1]

    def measure(self):
        start, processor = time.perf_counter(), time.process_time()
        self.evaluate()
        return time.perf_counter() - start, time.process_time() - processor


class OnnxRuntime(InProcess):
    name = "ONNX Runtime f32"

    def __init__(self, args, graph):
        import onnxruntime

        self.runs = args.runs
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = args.threads
        # Threads that wait for work do not stand in Kiln's way.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0" if args.polite else "1")
        path = Path(args.onnx, graph, "model.onnx")
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        names = {port.name for port in session.get_inputs()}
        inputs = {name: value for name, value in inputs_of(graph).items() if name in names}
        self.evaluate = lambda: session.run(None, inputs)
        self.evaluate()


class OpenVino(InProcess):
    def __init__(self, args, graph, path, name):
        import openvino

        self.name, self.runs = name, args.runs
        core = openvino.Core()
        config = {"INFERENCE_NUM_THREADS": args.threads, "NUM_STREAMS": 1}
        compiled = core.compile_model(str(path), "CPU", config)
        request, inputs = compiled.create_infer_request(), list(inputs_of(graph).values())
        self.evaluate = lambda: request.infer(inputs)
        self.evaluate()


class StableDiffusionCpp:
    """Whole drawings of one step and of three: half the difference is a step's UNet, without guidance."""

    name = "stable-diffusion.cpp"

    def __init__(self, args, graph):
        if graph != "unet":
            raise RuntimeError("its UNet alone is timed, by drawings")
        self.args = args

    def draw(self, steps):
        command = [self.args.sd_cli, "-m", self.args.sd_model, "-p", "x", "--cfg-scale", "1", "--steps", str(steps)]
        command += ["-t", str(self.args.threads), "--sampling-method", "euler", "-W", "512", "-H", "512"]
        with tempfile.TemporaryDirectory() as folder:
            start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run([*command, "-o", f"{folder}/x.png"], check=True, capture_output=True)
            wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
            return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    def turn(self):
        return tuple((three - one) / 2 for three, one in zip(self.draw(3), self.draw(1)))


def inputs_of(graph):
    random = np.random.default_rng(0)
    return GRAPHS[graph](lambda *shape: random.standard_normal(shape, dtype=np.float32))


def peers(args, graph):
    """Those that are here. What is not here is said, and why."""
    makers = {"ONNX Runtime f32": lambda: OnnxRuntime(args, graph)}
    openvino = Path(args.onnx, graph, "model.onnx")
    makers["OpenVINO"] = lambda: OpenVino(args, graph, openvino, "OpenVINO")
    int8 = Path(args.onnx, graph, "int8.xml")
    if int8.exists():
        makers["OpenVINO int8"] = lambda: OpenVino(args, graph, int8, "OpenVINO int8")
    elif graph == "unet":
        print(f"OpenVINO int8 is left out: no {int8}")
    if args.sd_cli and args.sd_model:
        makers["stable-diffusion.cpp"] = lambda: StableDiffusionCpp(args, graph)
    elif graph == "unet":
        print("stable-diffusion.cpp is left out: no --sd-cli and --sd-model")
    made = [Kiln(args, graph)]
    for name, make in makers.items():
        if args.only and name not in args.only:
            continue
        try:
            made.append(make())
        except Exception as error:
            print(f"{name} is left out: {error}")
    return made


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--kiln", default="target/release/kiln")
    parser.add_argument("--package", required=True, help="what `kiln compile random:sd15` wrote")
    parser.add_argument("--onnx", required=True, help="the folder that export_onnx.py filled")
    parser.add_argument("--graphs", nargs="+", default=list(GRAPHS), choices=list(GRAPHS))
    parser.add_argument("--only", nargs="+", help="names of the peers to time")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3, help="turns of each")
    parser.add_argument("--runs", type=int, default=1, help="evaluations in a turn: several where one takes milliseconds")
    parser.add_argument("--polite", action="store_true", help="ONNX Runtime's threads sleep when they wait")
    parser.add_argument("--sd-cli")
    parser.add_argument("--sd-model")
    args = parser.parse_args()
    for graph in args.graphs:
        made = peers(args, graph)
        least = {peer.name: [float("inf")] * 2 for peer in made}
        for _ in range(args.rounds):
            for peer in made:
                least[peer.name] = [min(a, b) for a, b in zip(least[peer.name], peer.turn())]
        print(f"{graph}, {args.threads} threads, least of {args.rounds} times {args.runs}")
        own = least["kiln"]
        for name, (wall, processor) in least.items():
            ratios = f"kiln / it: {own[0] / wall:5.2f} wall, {own[1] / processor:5.2f} processors"
            print(f"  {name:<22} {wall:8.3f} s {processor:8.3f} s   {ratios if name != 'kiln' else ''}", flush=True)


main()
