"""Trains the autoencoder, on 64x64 crops of the pictures.

    python train_vae.py [--until HH:MM | --minutes N]     train, or go on where it stopped
    python train_vae.py --export FOLDER                   write the weights and the latents' scale

Needed only for an autoencoder of one's own; train.py works with any of this shape. The state is kept as train.py
keeps its own, and a step's random choices depend on the seed and the step's number alone.
"""

import argparse
import math
import random
import time
from pathlib import Path

import torch
from diffusers import AutoencoderKL

from common import CHECKPOINTS, COLOUR_NAMES, SIZE, Pictures, next_time

SEED = 0
STEPS = 10000
BATCH, CROP = 16, 64
PEAK_RATE, WARM_UP = 1.2e-3, 100
EDGES, KL = 0.5, 1e-4
WHITE = 0.35
SAVE_SECONDS = 600
SHAPE = dict(
    block_out_channels=(24, 48, 96, 96), down_block_types=["DownEncoderBlock2D"] * 4,
    up_block_types=["UpDecoderBlock2D"] * 4, layers_per_block=1, norm_num_groups=8, latent_channels=4, sample_size=SIZE,
)


def batch(pictures, step):
    """Random crops of random pictures on random backgrounds, some mirrored: float in -1..1."""
    chance = random.Random(repr((SEED, "vae", step)))
    indices = torch.tensor([chance.randrange(len(pictures)) for _ in range(BATCH)])
    colours = [0 if chance.random() < WHITE else chance.randrange(len(COLOUR_NAMES)) for _ in range(BATCH)]
    crops = []
    for picture in pictures.on(indices, torch.tensor(colours)):
        y, x = (chance.randint(0, SIZE - CROP) for _ in range(2))
        crop = picture[:, y : y + CROP, x : x + CROP]
        crops.append(crop.flip(2) if chance.random() < 0.5 else crop)
    return (torch.stack(crops) / 127.5 - 1).contiguous(memory_format=torch.channels_last)


def edges(picture):
    return picture.diff(dim=3), picture.diff(dim=2)


def loss_of(vae, picture, noise):
    """Absolute error of the colours and of their differences, and a little of the KL divergence."""
    with torch.autocast("cpu", torch.bfloat16):
        latent = vae.encode(picture).latent_dist
        again = vae.decode(latent.mean + latent.std * noise).sample
    again = again.float()
    error = (again - picture).abs().mean()
    edge_error = sum((a - b).abs().mean() for a, b in zip(edges(again), edges(picture)))
    divergence = latent.kl().float().mean() / (4 * (CROP // 8) ** 2)
    return error + EDGES * edge_error + KL * divergence, error


def rate(step, steps):
    return PEAK_RATE * min(1, (step + 1) / WARM_UP) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))


def state_of(arguments):
    """The autoencoder, its optimizer and the number of steps taken, as the checkpoint has them if there is one."""
    torch.manual_seed(SEED)
    vae = AutoencoderKL(**SHAPE).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=PEAK_RATE, weight_decay=1e-4)
    path = arguments.checkpoints / "vae.pt"
    if not path.exists():
        return vae, optimizer, 0
    state = torch.load(path)
    vae.load_state_dict(state["weights"])
    optimizer.load_state_dict(state["optimizer"])
    return vae, optimizer, state["step"]


def save(arguments, vae, optimizer, step):
    arguments.checkpoints.mkdir(parents=True, exist_ok=True)
    path = arguments.checkpoints / "vae.pt"
    torch.save({"weights": vae.state_dict(), "optimizer": optimizer.state_dict(), "step": step}, path.with_suffix(".tmp"))
    path.with_suffix(".tmp").replace(path)


def train(arguments):
    pictures = Pictures()
    vae, optimizer, step = state_of(arguments)
    saved = time.time()
    end = math.inf if arguments.end is None else arguments.end
    while step < arguments.steps and time.time() < end:
        picture = batch(pictures, step)
        noise = torch.randn(BATCH, 4, CROP // 8, CROP // 8, generator=torch.Generator().manual_seed(step))
        loss, error = loss_of(vae, picture, noise)
        for group in optimizer.param_groups:
            group["lr"] = rate(step, arguments.steps)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        step += 1
        if step % 100 == 0:
            print(f"step {step} loss {loss.item():.4f} absolute error {error.item():.4f}", flush=True)
        if time.time() - saved > SAVE_SECONDS:
            save(arguments, vae, optimizer, step)
            saved = time.time()
    save(arguments, vae, optimizer, step)
    print(f"saved at step {step}")


@torch.no_grad()
def export(arguments):
    """Writes the autoencoder in float16, with the scale that gives the latents of the pictures a deviation of one."""
    vae, _, step = state_of(arguments)
    pictures = Pictures()
    some = torch.arange(0, len(pictures), 8)
    latents = [
        vae.encode(pictures.on(part, part % len(COLOUR_NAMES)) / 127.5 - 1).latent_dist.mean for part in some.split(16)
    ]
    vae.register_to_config(scaling_factor=1 / torch.cat(latents).std().item())
    vae.half().save_pretrained(arguments.export)
    print(f"{arguments.export}: step {step}, scale {vae.config.scaling_factor:.4f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Trains the autoencoder.")
    parser.add_argument("--steps", type=int, default=STEPS, help="length of the whole training")
    parser.add_argument("--until", dest="end", type=next_time, help="stop at HH:MM UTC")
    parser.add_argument("--minutes", dest="end", type=lambda text: time.time() + 60 * float(text), help="stop after N")
    parser.add_argument("--checkpoints", type=Path, default=CHECKPOINTS)
    parser.add_argument("--export", type=Path, help="write this folder instead of training")
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    export(chosen) if chosen.export else train(chosen)
