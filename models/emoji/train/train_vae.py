"""Trains the autoencoder, on 128x128 crops of the pictures.

    python train_vae.py [--steps N | --fit SECONDS] [--start FOLDER]     train, or go on where it stopped
    python train_vae.py --export FOLDER                                  write the weights and the latents' scale

`--start` begins from an earlier autoencoder of this shape. Needed only for an autoencoder of one's own; train.py works
with any of this shape. The state is kept as train.py keeps its own, and a step's random choices depend on the seed and
the step's number alone.
"""

import argparse
import math
from pathlib import Path

import torch
from diffusers import AutoencoderKL

from common import CHECKPOINTS, COLOUR_NAMES, DEVICE, SIZE, Clock, Pictures, arithmetic, compiled

SEED = 0
STEPS = 10000
BATCH, CROP = 64, 128
PEAK_RATE, WARM_UP = 1.2e-3, 100
EDGES, KL = 0.5, 1e-4
WHITE = 0.35
AVERAGE = 0.99
SHAPE = dict(
    block_out_channels=(24, 48, 96, 96), down_block_types=["DownEncoderBlock2D"] * 4,
    up_block_types=["UpDecoderBlock2D"] * 4, layers_per_block=1, norm_num_groups=8, latent_channels=4, sample_size=SIZE,
)


def edges(picture):
    return picture.diff(dim=3), picture.diff(dim=2)


def rate(step, part):
    return PEAK_RATE * min(1, (step + 1) / WARM_UP) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * part)))


class Training:
    """The autoencoder, the moving average of its weights, its optimizer and the number of steps taken, as the checkpoint has them."""

    def __init__(self, path, start):
        torch.manual_seed(SEED)
        self.path = path
        self.vae = AutoencoderKL(**SHAPE)
        if start and not path.exists():
            self.vae.load_state_dict(AutoencoderKL.from_pretrained(start, dtype=torch.float32).state_dict())
        self.vae.to(DEVICE)
        self.weights = list(self.vae.parameters())
        self.average = [weight.detach().clone() for weight in self.weights]
        self.optimizer = torch.optim.AdamW(self.weights, lr=PEAK_RATE, weight_decay=1e-4, fused=True)
        self.random = torch.Generator(DEVICE)
        self.step, self.steps = 0, None
        self.loss = compiled(self.loss_of)
        if path.exists():
            state = torch.load(path, map_location=DEVICE)
            self.vae.load_state_dict(state["weights"])
            self.average = state["average"]
            self.optimizer.load_state_dict(state["optimizer"])
            self.step, self.steps = state["step"], state["steps"]

    def save(self):
        self.path.parent.mkdir(parents=True, exist_ok=True)
        state = {
            "step": self.step,
            "steps": self.steps,
            "weights": self.vae.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
        }
        torch.save(state, self.path.with_suffix(".tmp"))
        self.path.with_suffix(".tmp").replace(self.path)

    def batch(self, rgba):
        """Random crops of random pictures on random backgrounds, some mirrored, in -1..1; and noise for their latents."""
        self.random.manual_seed(SEED * 10**9 + self.step)
        on = dict(generator=self.random, device=DEVICE)
        picture = torch.randint(len(rgba), (BATCH,), **on)
        corner = torch.randint(SIZE - CROP + 1, (2, BATCH, 1), **on)
        along = torch.arange(CROP, device=DEVICE)
        y, x = corner[0] + along, corner[1] + along
        x = torch.where(torch.rand(BATCH, 1, **on) < 0.5, x.flip(1), x)
        crop = rgba[picture[:, None, None], :, y[:, :, None], x[:, None, :]].permute(0, 3, 1, 2)
        colour = torch.randint(1, len(COLOUR_NAMES), (BATCH,), **on)
        colour = torch.where(torch.rand(BATCH, **on) < WHITE, 0, colour)
        noise = torch.randn(BATCH, 4, CROP // 8, CROP // 8, **on)
        return Pictures.compose(crop, colour) / 127.5 - 1, noise

    def loss_of(self, picture, noise):
        """Absolute error of the colours and of their differences, and a little of the KL divergence."""
        with arithmetic():
            latent = self.vae.encode(picture).latent_dist
            mean, deviation, divergence = latent.mean.float(), latent.std.float(), latent.kl().float()
            again = self.vae.decode(mean + deviation * noise, return_dict=False)[0].float()
        error = (again - picture).abs().mean()
        edge_error = sum((a - b).abs().mean() for a, b in zip(edges(again), edges(picture)))
        return error + EDGES * edge_error + KL * divergence.mean() / (4 * (CROP // 8) ** 2)

    def advance(self, rgba, part):
        loss = self.loss(*self.batch(rgba))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.weights, 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = rate(self.step, part)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        with torch.no_grad():
            torch._foreach_lerp_(self.average, self.weights, 1 - min(AVERAGE, (1 + self.step) / (10 + self.step)))
        return loss.detach()


def train(arguments):
    rgba = Pictures().rgba.to(DEVICE)
    training = Training(arguments.checkpoints / "vae.pt", arguments.start)
    clock = Clock(training.step, training.steps or (None if arguments.fit else arguments.steps), arguments.fit)
    while clock.running():
        clock.advance(training.advance(rgba, clock.part()))
        training.steps = clock.steps
        if clock.to_save():
            training.save()
    training.save()
    print(f"saved at step {training.step}", flush=True)


@torch.no_grad()
def export(arguments):
    """Writes the averaged weights in float16, with the scale that gives the latents of the pictures a deviation of one."""
    training = Training(arguments.checkpoints / "vae.pt", None)
    for weight, average in zip(training.weights, training.average):
        weight.copy_(average)
    vae, pictures = training.vae, Pictures()
    latents = []
    for some in torch.arange(0, len(pictures), 8).split(16):
        picture = pictures.on(some, some % len(COLOUR_NAMES)).to(DEVICE)
        latents.append(vae.encode(picture / 127.5 - 1).latent_dist.mean)
    vae.register_to_config(scaling_factor=1 / torch.cat(latents).std().item())
    vae.half().save_pretrained(arguments.export)
    print(f"{arguments.export}: step {training.step}, scale {vae.config.scaling_factor:.4f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Trains the autoencoder.")
    parser.add_argument("--steps", type=int, default=STEPS, help="length of the whole training")
    parser.add_argument("--fit", type=float, metavar="SECONDS", help="take as many steps as fit into this time instead")
    parser.add_argument("--start", type=Path, help="folder of an earlier autoencoder to start from")
    parser.add_argument("--checkpoints", type=Path, default=CHECKPOINTS)
    parser.add_argument("--export", type=Path, help="write this folder instead of training")
    chosen = parser.parse_args()
    export(chosen) if chosen.export else train(chosen)
