"""Exports a diffusers folder to the ONNX folder that Kiln compiles.

    python export.py DIFFUSERS_FOLDER OUTPUT_FOLDER

made with torch 2.15, diffusers 0.42.1, transformers 5.23, onnx 1.23, onnxruntime 1.32 on CPU.
Building Kiln does not need this script: it records how the folder next to it came to be, and serves
for a retrained model. For an ordinary Stable Diffusion checkpoint `optimum-cli export onnx` does as well.

The result has the layout, the input and output names and the dynamic axes of optimum's export:

    text_encoder   input_ids [batch, sequence] int32   -> last_hidden_state, pooler_output
    unet           sample, timestep, encoder_hidden_states -> out_sample
    vae_encoder    sample [batch, 3, height, width]    -> latent_parameters (mean and log-variance)
    vae_decoder    latent_sample                       -> sample

and one difference: a weight that float16 represents exactly is stored as a float16 initializer followed by a
Cast to float32. The graph computes in float32; float16 is storage only.

Each graph is run with onnxruntime, at the exported size and at another one, and compared with PyTorch.
"""

import argparse
import json
import os
import shutil
import sys
import warnings
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
warnings.filterwarnings("ignore")

import numpy as np
import onnx
import onnxruntime
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from onnx import TensorProto, helper, numpy_helper
from transformers import CLIPTextModel

OPSET = 17
TOLERANCE = 2e-4


class TextEncoder(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids):
        return self.model(input_ids=input_ids, return_dict=False)[:2]


class UNet(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, sample, timestep, encoder_hidden_states):
        return self.model(sample, timestep, encoder_hidden_states, return_dict=False)[0]


class VaeEncoder(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, sample):
        return self.model.encode(sample, return_dict=False)[0].parameters


class VaeDecoder(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, latent_sample):
        return self.model.decode(latent_sample, return_dict=False)[0]


def image_axes(channels="num_channels", suffix=""):
    return {0: "batch_size", 1: channels, 2: "height" + suffix, 3: "width" + suffix}


def components(source):
    """name -> (module, input names, output names, dynamic axes, inputs for a batch and a size in latent pixels)"""
    load = dict(dtype=torch.float32, local_files_only=True)
    text = CLIPTextModel.from_pretrained(source / "text_encoder", **load).eval()
    unet = UNet2DConditionModel.from_pretrained(source / "unet", **load).eval()
    vae = AutoencoderKL.from_pretrained(source / "vae", **load).eval()

    positions = text.config.max_position_embeddings
    size = unet.config.sample_size
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    generator = torch.Generator().manual_seed(0)

    def randn(*shape):
        return torch.randn(*shape, generator=generator)

    def ids(batch, height, width):
        tokens = torch.randint(0, text.config.bos_token_id, (batch, positions), generator=generator)
        tokens[:, 0] = text.config.bos_token_id
        tokens[:, 11:] = text.config.eos_token_id
        return (tokens.to(torch.int32),)

    def noisy(batch, height, width):
        return (
            randn(batch, unet.config.in_channels, height, width),
            torch.tensor([951], dtype=torch.int64),
            randn(batch, positions, unet.config.cross_attention_dim),
        )

    def picture(batch, height, width):
        return (randn(batch, vae.config.in_channels, height * factor, width * factor).clamp(-1, 1),)

    def latents(batch, height, width):
        return (randn(batch, vae.config.latent_channels, height, width),)

    table = {
        "text_encoder": (
            TextEncoder(text),
            ["input_ids"],
            ["last_hidden_state", "pooler_output"],
            {
                "input_ids": {0: "batch_size", 1: "sequence_length"},
                "last_hidden_state": {0: "batch_size", 1: "sequence_length"},
                "pooler_output": {0: "batch_size"},
            },
            ids,
        ),
        "unet": (
            UNet(unet),
            ["sample", "timestep", "encoder_hidden_states"],
            ["out_sample"],
            {
                "sample": image_axes(),
                "timestep": {0: "steps"},
                "encoder_hidden_states": {0: "batch_size", 1: "sequence_length"},
                "out_sample": image_axes(),
            },
            noisy,
        ),
        "vae_encoder": (
            VaeEncoder(vae),
            ["sample"],
            ["latent_parameters"],
            {"sample": image_axes(), "latent_parameters": image_axes("num_channels_latent", "_latent")},
            picture,
        ),
        "vae_decoder": (
            VaeDecoder(vae),
            ["latent_sample"],
            ["sample"],
            {"latent_sample": image_axes("num_channels_latent", "_latent"), "sample": image_axes()},
            latents,
        ),
    }
    return table, size


def store_weights_as_f16(model):
    """Turns each float32 initializer that float16 holds exactly into a float16 one and a Cast back.

    Scalars and tensors of one element are constants of the graph, not weights; they stay as they are.
    Returns how many tensors were converted and how many were not.
    """
    graph = model.graph
    casts, converted, kept = [], 0, 0
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT:
            continue
        wide = numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            narrow = wide.astype(np.float16)
        if wide.size <= 1 or not np.array_equal(narrow.astype(np.float32), wide):
            kept += 1
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(narrow, name + ".f16"))
        casts.append(helper.make_node("Cast", [name + ".f16"], [name], name=name + ".cast", to=TensorProto.FLOAT))
        converted += 1
    nodes = casts + list(graph.node)
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(model)
    return converted, kept


def largest_error(path, module, names, inputs):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    with torch.no_grad():
        expected = module(*inputs)
    if torch.is_tensor(expected):
        expected = (expected,)
    found = session.run(None, {name: value.numpy() for name, value in zip(names, inputs)})
    return max(float(np.abs(a.numpy() - b).max()) for a, b in zip(expected, found))


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")


def config_of(folder):
    """The component's configuration, less the place where it lay when it was trained."""
    config = json.loads((folder / "config.json").read_text())
    config.pop("_name_or_path", None)
    return config


def export(source, output):
    table, size = components(source)
    failed = False
    for name, (module, inputs, outputs, axes, make_inputs) in table.items():
        folder = output / name
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "model.onnx"
        with torch.no_grad():
            torch.onnx.export(
                module,
                make_inputs(2, size, size),
                str(path),
                input_names=inputs,
                output_names=outputs,
                dynamic_axes=axes,
                opset_version=OPSET,
                do_constant_folding=True,
                dynamo=False,
            )
        model = onnx.load(path)
        converted, kept = store_weights_as_f16(model)
        onnx.save(model, path)
        write_json(folder / "config.json", config_of(source / ("vae" if name.startswith("vae_") else name)))

        errors = [
            largest_error(path, module, inputs, make_inputs(batch, height, width))
            for batch, height, width in ((1, size, size), (2, size - 4, size + 8))
        ]
        failed |= max(errors) > TOLERANCE
        print(
            f"{name}: {path.stat().st_size / 1e6:.1f} MB, {len(model.graph.node)} nodes, "
            f"{converted} weights as float16, {kept} float32 initializers kept, "
            f"largest error against PyTorch {max(errors):.2e}",
            flush=True,
        )

    tokenizer = output / "tokenizer"
    tokenizer.mkdir(parents=True, exist_ok=True)
    for file in ("vocab.json", "merges.txt"):
        shutil.copyfile(source / "tokenizer" / file, tokenizer / file)
    write_json(
        tokenizer / "tokenizer_config.json",
        {
            "add_prefix_space": False,
            "bos_token": "<|startoftext|>",
            "do_lower_case": True,
            "eos_token": "<|endoftext|>",
            "errors": "replace",
            "model_max_length": 77,
            "pad_token": "<|endoftext|>",
            "tokenizer_class": "CLIPTokenizer",
            "unk_token": "<|endoftext|>",
        },
    )
    added = dict(lstrip=False, rstrip=False, normalized=False, single_word=False)
    write_json(
        tokenizer / "special_tokens_map.json",
        {
            "bos_token": {"content": "<|startoftext|>", **added},
            "eos_token": {"content": "<|endoftext|>", **added},
            "pad_token": "<|endoftext|>",
            "unk_token": {"content": "<|endoftext|>", **added},
        },
    )
    (output / "scheduler").mkdir(exist_ok=True)
    for file in ("scheduler/scheduler_config.json", "model_index.json"):
        write_json(output / file, json.loads((source / file).read_text()))
    if failed:
        sys.exit(f"an exported graph differs from PyTorch by more than {TOLERANCE}")


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description="Exports a diffusers folder to an ONNX folder.")
    arguments.add_argument("source", type=Path, help="diffusers folder")
    arguments.add_argument("output", type=Path, help="folder to write")
    chosen = arguments.parse_args()
    torch.set_num_threads(1)
    export(chosen.source, chosen.output)
