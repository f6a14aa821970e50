"""Trains text encoder and UNet together, on the latents of a finished autoencoder.

    python train.py --vae FOLDER [--start FOLDER] [--until HH:MM | --minutes N]     train, or go on where it stopped
    python train.py --export FOLDER                                                 write the averaged weights

The state is written to checkpoints/ every ten minutes, at the end, and on SIGTERM. Every random choice of a step is a
function of the seed and the step's number, so a stopped training that goes on takes the steps it would have taken.
A step's pictures are cut into parts that the threads take from a queue, each thread running on one core, and the
parts' gradients are added in their order: the result does not depend on which thread took which part.
"""

import argparse
import json
import math
import os
import random
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["OMP_NUM_THREADS"] = "1"  # the threads below are the parallelism

import torch
from diffusers import AutoencoderKL, DDIMScheduler, DDPMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from safetensors.torch import load_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from common import BETAS, CHECKPOINTS, COLOUR_NAMES, DATA, STYLES, Pictures, next_time
from muon import BFLOAT16, Muon

SEED = 0
STEPS = 12000
BATCH, PART, THREADS = 32, 16, 2
PEAK_RATE, WARM_UP, FLAT_UNTIL = 1e-3, 200, 0.4
AVERAGE = 0.999
BACKGROUNDS = 3  # colours other than white that a picture is seen on
WHITE = 0.5
MAX_SNR = 5.0
SAVE_SECONDS = 600

TEXT = dict(
    hidden_size=128, intermediate_size=512, num_hidden_layers=3, num_attention_heads=4, max_position_embeddings=77,
    hidden_act="quick_gelu",
)
UNET = dict(
    sample_size=16, in_channels=4, out_channels=4, block_out_channels=(64, 96, 160), layers_per_block=1,
    cross_attention_dim=128, attention_head_dim=4, norm_num_groups=32,
    down_block_types=["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    up_block_types=["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
)


def generator(*numbers):
    """A generator of random numbers that depends on the seed and the numbers alone."""
    return random.Random(repr((SEED, *numbers)))


def workers():
    """Threads that each compute on one core."""
    torch.set_num_threads(1)
    return ThreadPoolExecutor(THREADS, initializer=torch.set_num_threads, initargs=(1,))


def arithmetic():
    """bfloat16 where the processor computes in it, else float32."""
    return torch.autocast("cpu", torch.bfloat16, enabled=BFLOAT16, cache_enabled=False)


# Data


class Latents:
    """Each picture's scaled latents on white and on a few other colours, mirrored ones apart.

    `of[picture, mirrored, k]` lies on the colour `colours[picture, k]`; k = 0 is white.
    """

    def __init__(self, pictures, vae_folder):
        path = DATA / "latents.pt"
        if not path.exists():
            torch.save(self.encode(pictures, vae_folder), path)
        stored = torch.load(path)
        self.of, self.colours = stored["latents"], stored["colours"]

    @staticmethod
    def encode(pictures, vae_folder):
        vae = AutoencoderKL.from_pretrained(vae_folder, dtype=torch.float32).eval().to(memory_format=torch.channels_last)
        others = [
            [0, *generator("colours", picture).sample(range(1, len(COLOUR_NAMES)), BACKGROUNDS)]
            for picture in range(len(pictures))
        ]
        colours = torch.tensor(others)
        latents = torch.zeros(len(pictures), 2, 1 + BACKGROUNDS, 4, 16, 16, dtype=torch.float16)
        mirrored = torch.tensor(pictures.mirrors)

        @torch.no_grad()
        def fill(indices):
            for flip, some in enumerate((indices, indices[mirrored[indices]])):
                for k in range(1 + BACKGROUNDS if len(some) else 0):
                    picture = pictures.on(some, colours[some, k]) / 127.5 - 1
                    picture = (picture.flip(3) if flip else picture).contiguous(memory_format=torch.channels_last)
                    with arithmetic():
                        mean = vae.encode(picture).latent_dist.mean
                    latents[some, flip, k] = (mean.float() * vae.config.scaling_factor).half()
            if indices[0] % 512 == 0:
                print(f"encoding pictures: {indices[0]} of {len(pictures)}", flush=True)

        with workers() as pool:
            list(pool.map(fill, torch.arange(len(pictures)).split(16)))
        return {"latents": latents, "colours": colours}


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


class Batches:
    """The pictures, captions, timesteps and noise of each step. Every picture comes once an epoch, in a new order."""

    def __init__(self, pictures, latents, tokenizer):
        self.pictures, self.latents, self.tokenizer = pictures, latents, tokenizer
        self.epoch, self.order = None, None

    def picture(self, position):
        epoch, place = divmod(position, len(self.pictures))
        if epoch != self.epoch:
            self.epoch, self.order = epoch, list(range(len(self.pictures)))
            generator("epoch", epoch).shuffle(self.order)
        return self.order[place]

    def __call__(self, step):
        chance = generator("step", step)
        clean, texts = [], []
        for position in range(step * BATCH, (step + 1) * BATCH):
            picture = self.picture(position)
            k = 0 if chance.random() < WHITE else chance.randint(1, BACKGROUNDS)
            flip = self.pictures.mirrors[picture] and chance.random() < 0.5
            clean.append(self.latents.of[picture, int(flip), k])
            texts.append(caption(self.pictures, picture, int(self.latents.colours[picture, k]), chance))
        noise = torch.Generator().manual_seed(chance.getrandbits(63))
        shape = (BATCH, 4, 16, 16)
        # The timesteps are spread evenly over the thousand, which makes the gradient less noisy.
        spread = (torch.randperm(BATCH, generator=noise) + torch.rand(BATCH, generator=noise)) / BATCH
        ids = self.tokenizer(texts, padding="max_length", truncation=True, max_length=77, return_tensors="pt").input_ids
        return (
            torch.stack(clean).float(),
            ids,
            (spread * BETAS["num_train_timesteps"]).long().clamp(max=BETAS["num_train_timesteps"] - 1),
            torch.randn(shape, generator=noise),
        )


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
    # Explicit attention: at these sizes it trains twice as fast on a CPU as the fused one.
    text.set_attn_implementation("eager")
    unet.set_attn_processor(AttnProcessor())
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


def rate(step, steps):
    """Learning rate: warm-up, flat, then a cosine to one hundredth."""
    if step < WARM_UP:
        return PEAK_RATE * (step + 1) / WARM_UP
    part = max(0.0, (step / steps - FLAT_UNTIL) / (1 - FLAT_UNTIL))
    return PEAK_RATE * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, part))))


class Training:
    """Weights, their moving average, the optimizers and the number of steps taken: all that a checkpoint holds."""

    def __init__(self, tokenizer):
        self.text, self.unet = new_models(tokenizer)
        self.weights = [*self.text.parameters(), *self.unet.parameters()]
        self.average = [weight.detach().clone() for weight in self.weights]
        matrices, others = self.divide()
        self.muon = Muon(matrices)
        self.adam = torch.optim.AdamW(others, lr=PEAK_RATE, betas=(0.9, 0.99), weight_decay=1e-3, fused=True)
        self.step = 0
        cumulative = DDPMScheduler(**BETAS).alphas_cumprod
        self.alpha, self.sigma = cumulative.sqrt(), (1 - cumulative).sqrt()
        # The noise is easiest to tell where there is most of it, so a plain mean would neglect the steps in which the
        # prompt decides the picture. In terms of the clean picture's error this weight is min(sqrt(SNR), sqrt(5)).
        ratio = cumulative / (1 - cumulative)
        self.weight_of = ratio.clamp(max=MAX_SNR).sqrt() / ratio

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

    def gradient(self, clean, ids, timestep, noise):
        """Loss and gradient of one part of a batch; touches nothing that another thread may use."""
        scaled = [value[timestep][:, None, None, None] for value in (self.alpha, self.sigma)]
        noisy = scaled[0] * clean + scaled[1] * noise
        with arithmetic():
            context = self.text(input_ids=ids).last_hidden_state
            predicted = self.unet(noisy, timestep, context).sample
        error = (predicted.float() - noise).square().mean((1, 2, 3))
        loss = (error * self.weight_of[timestep]).sum() / BATCH
        return loss.item(), torch.autograd.grad(loss, self.weights, allow_unused=True, materialize_grads=True)

    def advance(self, batch, pool, steps):
        parts = [pool.submit(self.gradient, *part) for part in zip(*(value.split(PART) for value in batch))]
        loss, total = parts[0].result()
        total = list(total)
        for part in parts[1:]:
            more, gradients = part.result()
            loss += more
            torch._foreach_add_(total, gradients)
        for weight, gradient in zip(self.weights, total):
            weight.grad = gradient
        torch.nn.utils.clip_grad_norm_(self.weights, 1.0)
        for group in self.adam.param_groups:
            group["lr"] = rate(self.step, steps)
        self.adam.step()
        self.muon.step(rate(self.step, steps), pool)
        self.step += 1
        with torch.no_grad():
            torch._foreach_lerp_(self.average, self.weights, 1 - min(AVERAGE, (1 + self.step) / (10 + self.step)))
        return loss

    def save(self, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        state = {
            "step": self.step,
            "weights": [weight.detach() for weight in self.weights],
            "average": self.average,
            "adam": self.adam.state_dict(),
            "muon": self.muon.momentum,
        }
        torch.save(state, path.with_suffix(".tmp"))
        path.with_suffix(".tmp").replace(path)

    def load(self, path):
        state = torch.load(path)
        self.step = state["step"]
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
    batches = Batches(pictures, Latents(pictures, arguments.vae), tokenizer)
    training = Training(tokenizer)
    checkpoint = arguments.checkpoints / "state.pt"
    if checkpoint.exists():
        training.load(checkpoint)
    elif arguments.start:
        training.start(arguments.start, tokenizer)
    shutil.copytree(arguments.vae, arguments.checkpoints / "vae", dirs_exist_ok=True)
    print(f"parameters: text encoder {sum(p.numel() for p in training.text.parameters()) / 1e6:.2f} M, "
          f"UNet {sum(p.numel() for p in training.unet.parameters()) / 1e6:.2f} M; "
          f"at step {training.step} of {arguments.steps}, {len(pictures)} pictures", flush=True)

    stopped = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.append(True))
    end = math.inf if arguments.end is None else arguments.end
    saved = logged = time.time()
    losses = []
    with workers() as pool:
        while training.step < arguments.steps and not stopped and time.time() < end:
            losses.append(training.advance(batches(training.step), pool, arguments.steps))
            now = time.time()
            if training.step % 20 == 0:
                print(f"{datetime.now(timezone.utc):%H:%M:%S} step {training.step} "
                      f"epoch {training.step * BATCH / len(pictures):.2f} loss {sum(losses) / len(losses):.4f} "
                      f"rate {rate(training.step, arguments.steps):.2e} "
                      f"{len(losses) * BATCH / (now - logged):.1f} img/s", flush=True)
                losses, logged = [], now
            if now - saved > SAVE_SECONDS:
                training.save(checkpoint)
                saved = now
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
    parser.add_argument("--until", dest="end", type=next_time, help="stop at HH:MM UTC")
    parser.add_argument("--minutes", dest="end", type=lambda text: time.time() + 60 * float(text), help="stop after N")
    parser.add_argument("--checkpoints", type=Path, default=CHECKPOINTS)
    parser.add_argument("--export", type=Path, help="write this diffusers folder instead of training")
    chosen = parser.parse_args()
    if chosen.export:
        export(chosen)
    elif chosen.vae:
        train(chosen)
    else:
        parser.error("--vae or --export is needed")
