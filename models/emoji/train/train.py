"""Trains text encoder and UNet together, on the latents of a finished autoencoder.

    python train.py --vae FOLDER [--steps N | --fit SECONDS] [--start FOLDER]     train, or go on where it stopped
    python train.py --export FOLDER                                               write the averaged weights

On a GPU if there is one. The state is written to checkpoints/ every minute, at the end, and on SIGTERM. Every random
choice of a step is a function of the seed and the step's number, so a stopped training that goes on takes the steps it
would have taken.
"""

import argparse
import itertools
import json
import math
import os
import random
import shutil
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from diffusers import AutoencoderKL, DDIMScheduler, DDPMScheduler, UNet2DConditionModel
from safetensors.torch import load_file
from torch.utils.data import DataLoader, Dataset
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from common import BETAS, CHECKPOINTS, COLOUR_NAMES, DATA, DEVICE, SIZE, STYLES, Clock, Pictures, arithmetic, compiled
from muon import Muon

SEED = 0
STEPS = 8000
BATCH, WORKERS = 256, 4
PEAK_RATE, WARM_UP, FLAT_UNTIL = 2e-3, 200, 0.3
AVERAGE = 0.998
WHITE = 0.5
MAX_SNR = 5.0
LATENT = SIZE // 8

TEXT = dict(
    hidden_size=128, intermediate_size=512, num_hidden_layers=3, num_attention_heads=4, max_position_embeddings=77,
    hidden_act="quick_gelu",
)
UNET = dict(
    sample_size=LATENT, in_channels=4, out_channels=4, block_out_channels=(64, 96, 160), layers_per_block=1,
    cross_attention_dim=128, attention_head_dim=4, norm_num_groups=32,
    down_block_types=["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    up_block_types=["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
)


def generator(*numbers):
    """A generator of random numbers that depends on the seed and the numbers alone."""
    return random.Random(repr((SEED, *numbers)))


# Data


class Latents:
    """Each picture's scaled latents on each colour, and mirrored where it may be: float16 [rows, colours, 4, 32, 32].

    `row[picture]` is the picture's row and `mirrored[picture]` its mirror image's, or None.
    """

    def __init__(self, pictures, vae_folder):
        some = [picture for picture, mirrors in enumerate(pictures.mirrors) if mirrors]
        self.row = list(range(len(pictures)))
        self.mirrored = [None] * len(pictures)
        for place, picture in enumerate(some):
            self.mirrored[picture] = len(pictures) + place
        path = DATA / "latents.pt"
        if not path.exists():
            torch.save(self.encode(pictures, some, vae_folder), path)
        self.of = torch.load(path).to(DEVICE)

    @staticmethod
    @torch.no_grad()
    def encode(pictures, mirrored, vae_folder):
        vae = AutoencoderKL.from_pretrained(vae_folder, dtype=torch.float32).eval().to(DEVICE)
        rows = torch.tensor([*range(len(pictures)), *mirrored])
        latents = torch.empty(len(rows), len(COLOUR_NAMES), 4, LATENT, LATENT, dtype=torch.float16)
        for places in torch.arange(len(rows)).split(32):
            rgba = pictures.rgba[rows[places]].to(DEVICE)
            flips = (places >= len(pictures)).to(DEVICE)[:, None, None, None]
            rgba = torch.where(flips, rgba.flip(3), rgba)
            for colour in range(len(COLOUR_NAMES)):
                colours = torch.full((len(places),), colour, device=DEVICE)
                with arithmetic():
                    mean = vae.encode(pictures.compose(rgba, colours) / 127.5 - 1).latent_dist.mean
                latents[places, colour] = (mean.float() * vae.config.scaling_factor).half().cpu()
        return latents


def caption(pictures, picture, colour, chance):
    """What the picture is called this time."""
    if chance.random() < 0.1:
        return ""
    name, synonyms = pictures.name[picture], pictures.synonyms[picture]
    text = chance.choice(synonyms) if synonyms and chance.random() < 0.2 else name
    if synonyms and chance.random() < 0.15:
        text += ", " + ", ".join(chance.sample(synonyms, min(2, len(synonyms))))
    if chance.random() < 0.1:
        text = f"a {text}"
    if chance.random() < 0.6:
        text += f", {STYLES[pictures.style[picture]]} style"
    if colour != 0 or chance.random() < 0.2:
        text += f", {COLOUR_NAMES[colour]} background"
    return text


class Batches(Dataset):
    """What each step's pictures are: their latents' rows, their backgrounds and the tokens of their captions.

    Every picture comes once an epoch, in a new order.
    """

    def __init__(self, pictures, latents, tokenizer):
        self.pictures, self.tokenizer = pictures, tokenizer
        self.row, self.mirrored = latents.row, latents.mirrored
        self.epoch, self.order = None, None

    def picture(self, position):
        epoch, place = divmod(position, len(self.row))
        if epoch != self.epoch:
            self.epoch, self.order = epoch, list(range(len(self.row)))
            generator("epoch", epoch).shuffle(self.order)
        return self.order[place]

    def __getitem__(self, step):
        chance = generator("step", step)
        rows, colours, texts = [], [], []
        for position in range(step * BATCH, (step + 1) * BATCH):
            picture = self.picture(position)
            colour = 0 if chance.random() < WHITE else chance.randrange(1, len(COLOUR_NAMES))
            mirrored = self.mirrored[picture]
            rows.append(self.row[picture] if mirrored is None or chance.random() < 0.5 else mirrored)
            colours.append(colour)
            texts.append(caption(self.pictures, picture, colour, chance))
        ids = self.tokenizer(texts, padding="max_length", truncation=True, max_length=77, return_tensors="pt").input_ids
        return torch.tensor(rows), torch.tensor(colours), ids

    def loader(self, first):
        """The steps from the first on, made ahead in other processes."""
        return iter(DataLoader(self, batch_size=None, sampler=Steps(first), num_workers=WORKERS, prefetch_factor=8))


class Steps:
    """The numbers of the steps from the first on."""

    def __init__(self, first):
        self.first = first

    def __iter__(self):
        return itertools.count(self.first)


# Models


def new_models(tokenizer):
    vocabulary = len(tokenizer)
    torch.manual_seed(SEED)
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=vocabulary, bos_token_id=vocabulary - 2, eos_token_id=vocabulary - 1,
            pad_token_id=vocabulary - 1, **TEXT,
        )
    )
    unet = UNet2DConditionModel(**UNET)
    return text, unet


def start_from(folder, text, unet, tokenizer):
    """Takes over what fits from an earlier model: weights of the same name and shape, embeddings of the same tokens.

    A transformer block that is new to the model begins as the identity, so the model begins as the earlier one.
    """
    old = load_file(folder / "unet/diffusion_pytorch_model.safetensors")
    new = unet.state_dict()
    for name in new:
        if name in old and old[name].shape == new[name].shape:
            new[name] = old[name].float()
        elif "attentions" in name and "proj_out" in name:
            new[name] = torch.zeros_like(new[name])
    unet.load_state_dict(new)

    old = load_file(folder / "text_encoder/model.safetensors")
    old = {name.removeprefix("text_model."): tensor.float() for name, tensor in old.items()}
    new = text.state_dict()
    vocabulary = json.loads((folder / "tokenizer/vocab.json").read_text())
    for name in new:
        tensor = old.get(name.removeprefix("text_model."))
        if tensor is None:
            continue
        if "token_embedding" in name:
            for token, row in tokenizer.get_vocab().items():
                if token in vocabulary:
                    new[name][row] = tensor[vocabulary[token]]
        elif tensor.shape == new[name].shape:
            new[name] = tensor
    text.load_state_dict(new)


def rate(step, part):
    """Learning rate: warm-up, flat, then a cosine to one hundredth as the training's part that is done goes to 1."""
    if step < WARM_UP:
        return PEAK_RATE * (step + 1) / WARM_UP
    fallen = min(1.0, max(0.0, (part - FLAT_UNTIL) / (1 - FLAT_UNTIL)))
    return PEAK_RATE * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * fallen)))


class Training:
    """Weights, their moving average and the optimizers: with the step's number and the length all that a checkpoint holds."""

    def __init__(self, tokenizer):
        self.text, self.unet = (model.to(DEVICE) for model in new_models(tokenizer))
        self.weights = [*self.text.parameters(), *self.unet.parameters()]
        self.average = [weight.detach().clone() for weight in self.weights]
        matrices, others = self.divide()
        self.muon = Muon(matrices)
        self.adam = torch.optim.AdamW(others, lr=PEAK_RATE, betas=(0.9, 0.99), weight_decay=1e-3, fused=True)
        self.step, self.steps = 0, None
        self.random = torch.Generator(DEVICE)
        cumulative = DDPMScheduler(**BETAS).alphas_cumprod.to(DEVICE)
        self.alpha, self.sigma = cumulative.sqrt(), (1 - cumulative).sqrt()
        # The noise is easiest to tell where there is most of it, so a plain mean would neglect the steps in which the
        # prompt decides the picture. In terms of the clean picture's error this weight is min(sqrt(SNR), sqrt(5)).
        ratio = cumulative / (1 - cumulative)
        self.weight_of = ratio.clamp(max=MAX_SNR).sqrt() / ratio
        self.loss = compiled(self.loss_of)

    def divide(self):
        """The weights for Muon, matrices inside the networks, and the rest for Adam."""
        matrices, others = [], []
        for module in (self.text, self.unet):
            for name, weight in module.named_parameters():
                outer = "embedding" in name or name.startswith(("conv_in", "conv_out"))
                (others if outer or weight.ndim < 2 else matrices).append(weight)
        return matrices, others

    def start(self, folder, tokenizer):
        start_from(folder, self.text, self.unet, tokenizer)
        self.average = [weight.detach().clone() for weight in self.weights]

    def loss_of(self, clean, ids, timestep, noise):
        scaled = [value[timestep][:, None, None, None] for value in (self.alpha, self.sigma)]
        noisy = scaled[0] * clean + scaled[1] * noise
        with arithmetic():
            context = self.text(input_ids=ids).last_hidden_state
            predicted = self.unet(noisy, timestep, context, return_dict=False)[0]
        error = (predicted.float() - noise).square().mean((1, 2, 3))
        return (error * self.weight_of[timestep]).mean()

    def noise(self):
        """The step's timesteps, spread evenly over the thousand, which makes the gradient less noisy, and its noise."""
        self.random.manual_seed(generator("noise", self.step).getrandbits(63))
        on = dict(generator=self.random, device=DEVICE)
        spread = (torch.arange(BATCH, device=DEVICE) + torch.rand(BATCH, **on)) / BATCH
        count = BETAS["num_train_timesteps"]
        return (spread * count).long().clamp(max=count - 1), torch.randn(BATCH, 4, LATENT, LATENT, **on)

    def advance(self, clean, ids, part):
        """A step on BATCH latents and their captions' tokens; `part` of the training is done. Returns the loss."""
        loss = self.loss(clean, ids, *self.noise())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.weights, 1.0)
        now = rate(self.step, part)
        for group in self.adam.param_groups:
            group["lr"] = now
        self.adam.step()
        self.muon.step(now)
        self.adam.zero_grad()
        for weight in self.muon.weights:
            weight.grad = None
        self.step += 1
        with torch.no_grad():
            torch._foreach_lerp_(self.average, self.weights, 1 - min(AVERAGE, (1 + self.step) / (10 + self.step)))
        return loss.detach()

    def save(self, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        state = {
            "step": self.step,
            "steps": self.steps,
            "weights": [weight.detach() for weight in self.weights],
            "average": self.average,
            "adam": self.adam.state_dict(),
            "muon": self.muon.momentum,
        }
        torch.save(state, path.with_suffix(".tmp"))
        path.with_suffix(".tmp").replace(path)

    def load(self, path):
        state = torch.load(path, map_location=DEVICE)
        self.step, self.steps = state["step"], state["steps"]
        self.average = state["average"]
        with torch.no_grad():
            for weight, stored in zip(self.weights, state["weights"]):
                weight.copy_(stored)
        self.adam.load_state_dict(state["adam"])
        self.muon.momentum = state["muon"]


# Commands


def train(arguments):
    tokenizer = CLIPTokenizer.from_pretrained(DATA / "tokenizer")
    pictures = Pictures()
    latents = Latents(pictures, arguments.vae)
    training = Training(tokenizer)
    checkpoint = arguments.checkpoints / "state.pt"
    if checkpoint.exists():
        training.load(checkpoint)
    elif arguments.start:
        training.start(arguments.start, tokenizer)
    clock = Clock(training.step, training.steps or (None if arguments.fit else arguments.steps), arguments.fit)
    shutil.copytree(arguments.vae, arguments.checkpoints / "vae", dirs_exist_ok=True)
    print(f"parameters: text encoder {sum(p.numel() for p in training.text.parameters()) / 1e6:.2f} M, "
          f"UNet {sum(p.numel() for p in training.unet.parameters()) / 1e6:.2f} M; "
          f"at step {training.step}, {len(pictures)} pictures, {len(pictures) / BATCH:.1f} steps an epoch", flush=True)

    batches = Batches(pictures, latents, tokenizer).loader(training.step)
    while clock.running():
        rows, colours, ids = (value.to(DEVICE) for value in next(batches))
        clock.advance(training.advance(latents.of[rows, colours].float(), ids, clock.part()))
        training.steps = clock.steps
        if clock.to_save():
            training.save(checkpoint)
    training.save(checkpoint)
    print(f"saved at step {training.step}", flush=True)


def export(arguments):
    """Writes a diffusers folder of the averaged weights in float16."""
    tokenizer = CLIPTokenizer.from_pretrained(DATA / "tokenizer")
    training = Training(tokenizer)
    training.load(arguments.checkpoints / "state.pt")
    with torch.no_grad():
        for weight, average in zip(training.weights, training.average):
            weight.copy_(average)
    folder = arguments.export
    training.text.half().save_pretrained(folder / "text_encoder")
    training.unet.half().save_pretrained(folder / "unet")
    AutoencoderKL.from_pretrained(arguments.checkpoints / "vae").half().save_pretrained(folder / "vae")
    tokenizer.save_pretrained(folder / "tokenizer")
    for file in ("vocab.json", "merges.txt"):
        shutil.copyfile(DATA / "tokenizer" / file, folder / "tokenizer" / file)
    DDIMScheduler(
        **BETAS, clip_sample=False, set_alpha_to_one=False, steps_offset=1, prediction_type="epsilon"
    ).save_pretrained(folder / "scheduler")
    index = {
        "_class_name": "StableDiffusionPipeline",
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
    print(f"{folder}: step {training.step}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Trains text encoder and UNet.")
    parser.add_argument("--vae", type=Path, help="folder of the autoencoder")
    parser.add_argument("--start", type=Path, help="diffusers folder of an earlier model to start from")
    parser.add_argument("--steps", type=int, default=STEPS, help="length of the whole training")
    parser.add_argument("--fit", type=float, metavar="SECONDS", help="take as many steps as fit into this time instead")
    parser.add_argument("--checkpoints", type=Path, default=CHECKPOINTS)
    parser.add_argument("--export", type=Path, help="write this diffusers folder instead of training")
    chosen = parser.parse_args()
    if chosen.export:
        export(chosen)
    elif chosen.vae:
        train(chosen)
    else:
        parser.error("--vae or --export is needed")
