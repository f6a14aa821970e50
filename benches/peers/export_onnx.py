"""Writes models of Stable Diffusion 1.5's geometry with random weights as ONNX: time and memory do not depend on values.

    pip install torch diffusers transformers onnx && python export_onnx.py FOLDER

makes FOLDER/{text_encoder,unet,vae_decoder}/model.onnx, 4.2 GB in all. Needs some 14 GB of memory.
"""

import gc
import sys
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel


class Part(torch.nn.Module):
    """A model as a function of tensors."""

    def __init__(self, model, call):
        super().__init__()
        self.model, self.call = model.eval(), call

    def forward(self, *inputs):
        return self.call(self.model, *inputs)


def text_encoder():
    config = CLIPTextConfig(
        vocab_size=49408,
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        max_position_embeddings=77,
        projection_dim=768,
    )
    call = lambda model, ids: model(ids, return_dict=False)[0]
    ids = torch.zeros(1, 77, dtype=torch.long)
    return Part(CLIPTextModel(config), call), (ids,), ["input_ids"], "last_hidden_state"


def unet():
    model = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
    call = lambda model, *inputs: model(*inputs, return_dict=False)[0]
    inputs = torch.randn(1, 4, 64, 64), torch.tensor([500]), torch.randn(1, 77, 768)
    return Part(model, call), inputs, ["sample", "timestep", "encoder_hidden_states"], "out_sample"


def vae_decoder():
    model = AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        layers_per_block=2,
        latent_channels=4,
        sample_size=512,
    )
    call = lambda model, latents: model.decode(latents, return_dict=False)[0]
    return Part(model, call), (torch.randn(1, 4, 64, 64),), ["latent_sample"], "sample"


def main():
    folder = Path(sys.argv[1])
    torch.manual_seed(0)
    for make in (text_encoder, unet, vae_decoder):
        part, inputs, names, output = make()
        path = folder / make.__name__
        path.mkdir(parents=True, exist_ok=True)
        with torch.no_grad():
            torch.onnx.export(
                part,
                inputs,
                str(path / "model.onnx"),
                input_names=names,
                output_names=[output],
                opset_version=17,
                dynamo=False,
            )
        print(path, flush=True)
        del part
        gc.collect()


main()
