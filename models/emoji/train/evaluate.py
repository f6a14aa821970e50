"""Judges a model by numbers and a contact sheet.

    python evaluate.py DIFFUSERS_FOLDER [--output FOLDER]       diffusers in float32
    python evaluate.py --kiln COMMAND [-- OPTION ...]           names and backgrounds as Kiln's command draws them

Noise depends on the prompt's number alone. OPTIONs are those of `kiln draw`: --steps 12, say.

names        200 prompts, plain names, evenly from the groups. Each picture is compared, at 32x32 in RGB, with every
             training picture on white: does its nearest neighbour carry the prompted name (top 1), does one of its
             five nearest (top 5)? And how far is the nearest one of that name, RMS of 0..255, in the median?
backgrounds  100 prompts with a colour: is that colour, of the twelve, the nearest to each of the four corners?
autoencoder  PSNR of training pictures, on backgrounds of all colours, after encoding and decoding
sheet        48 prompts as a picture, sheet.png

Prints the numbers and writes them, with every prompt's rank, to numbers.json.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from statistics import median

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from PIL import Image, ImageDraw
from torch.nn.functional import interpolate
from transformers import CLIPTextModel, CLIPTokenizer

from common import COLOUR_NAMES, COLOUR_VALUES, DEVICE, GROUPS, SIZE, Pictures

STEPS, GUIDANCE = 20, 4.0
NAMES, BACKGROUNDS = 200, 100
CORNER = SIZE // 32
SHEET_COLUMNS = 8
SHEET = """
red apple, 3d style
grinning face, 3d style
dog face, 3d style, blue background
pizza, flat style
soccer ball, 3d style
sunflower, flat style
cat face, 3d style
strawberry, 3d style, green background
smiling face with heart-eyes, 3d style
robot, 3d style, yellow background
ghost, flat style, purple background
alien monster, flat style
fox, 3d style
panda, 3d style, pink background
frog, flat style
penguin, 3d style
octopus, 3d style, teal background
turtle, flat style
lady beetle, 3d style
mushroom, 3d style, brown background
hamburger, 3d style
doughnut, flat style, pink background
birthday cake, 3d style
hot beverage, flat style, orange background
watermelon, 3d style
avocado, flat style
thumbs up, 3d style
police officer, 3d style, gray background
santa claus, 3d style
mermaid, flat style
rocket, 3d style, black background
sailboat, flat style
automobile, 3d style
castle, flat style, blue background
volcano, 3d style
snowman, 3d style, teal background
guitar, 3d style
crown, 3d style, red background
light bulb, flat style, black background
key, 3d style
books, flat style
umbrella, 3d style
red heart, 3d style
yin yang, flat style
flag: germany, 3d style
flag: japan, flat style, gray background
christmas tree, 3d style, red background
balloon, 3d style, white background
""".strip().splitlines()


class Model:
    def __init__(self, folder):
        load = dict(dtype=torch.float32, local_files_only=True)
        self.tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
        self.text = CLIPTextModel.from_pretrained(folder / "text_encoder", **load).eval().to(DEVICE)
        self.unet = UNet2DConditionModel.from_pretrained(folder / "unet", **load).eval().to(DEVICE)
        self.vae = AutoencoderKL.from_pretrained(folder / "vae", **load).eval().to(DEVICE)
        self.scheduler = DDIMScheduler.from_pretrained(folder / "scheduler")

    def context(self, prompts):
        ids = self.tokenizer(prompts, padding="max_length", truncation=True, max_length=77, return_tensors="pt")
        return self.text(input_ids=ids.input_ids.to(DEVICE)).last_hidden_state

    @torch.no_grad()
    def draw(self, prompts, first_seed):
        """One picture a prompt, float [n, 3, 256, 256] in 0..255."""
        pictures = []
        for start in range(0, len(prompts), 16):
            some = prompts[start : start + 16]
            context = self.context([""] * len(some) + some)
            seeds = range(first_seed + start, first_seed + start + len(some))
            noise = [torch.randn(1, 4, SIZE // 8, SIZE // 8, generator=torch.Generator().manual_seed(s)) for s in seeds]
            latents = torch.cat(noise).to(DEVICE)
            self.scheduler.set_timesteps(STEPS)
            for timestep in self.scheduler.timesteps:
                plain, prompted = self.unet(torch.cat([latents, latents]), timestep, context).sample.chunk(2)
                noise = plain + GUIDANCE * (prompted - plain)
                latents = self.scheduler.step(noise, timestep, latents).prev_sample
            decoded = self.vae.decode(latents / self.vae.config.scaling_factor).sample
            pictures.append(((decoded.clamp(-1, 1) + 1) * 127.5).round().cpu())
        return torch.cat(pictures)


class Kiln:
    """The same by the command, with the model inside it and its defaults, or as the options say."""

    def __init__(self, command, options):
        self.command, self.options = command, options

    def draw(self, prompts, first_seed):
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            lines = [json.dumps({"prompt": prompt, "seed": first_seed + k}) for k, prompt in enumerate(prompts)]
            (folder / "prompts.jsonl").write_text("\n".join(lines) + "\n")
            outputs = ["--prompts", folder / "prompts.jsonl", "-o", folder / "{n}.png", "--quiet"]
            subprocess.run([self.command, "draw", *outputs, *self.options], check=True)
            files = [folder / f"{k + 1}.png" for k in range(len(prompts))]
            pictures = [torch.from_numpy(np.array(Image.open(file).convert("RGB"))) for file in files]
            return torch.stack(pictures).permute(0, 3, 1, 2).float()


def spread(items, count):
    """`count` of the items, evenly from first to last."""
    return [items[(2 * k + 1) * len(items) // (2 * count)] for k in range(count)]


def plain_names(pictures, number):
    """(name, group) of so many prompts: as many from each group, the components left out."""
    by_group = defaultdict(dict)
    for name, group in zip(pictures.name, pictures.group):
        by_group[group][name] = None
    groups = [group for group in sorted(by_group) if GROUPS[group] != "components"]
    chosen = []
    for place, group in enumerate(groups):
        count = number * (place + 1) // len(groups) - number * place // len(groups)
        chosen += [(name, GROUPS[group]) for name in spread(list(by_group[group]), count)]
    return chosen


def thumbnails(pictures):
    return interpolate(pictures, size=(32, 32), mode="area").flatten(1)


def judge_names(model, pictures, number):
    chosen = plain_names(pictures, number)
    drawn = thumbnails(model.draw([name for name, _ in chosen], first_seed=0))
    known = torch.cat(
        [
            thumbnails(pictures.on(part, torch.zeros_like(part)))
            for part in torch.arange(len(pictures)).split(256)
        ]
    )
    distances = torch.cdist(drawn, known) / drawn.shape[1] ** 0.5
    ranks = []
    for (name, group), distance in zip(chosen, distances):
        order = distance.argsort().tolist()
        rank = next(place for place, picture in enumerate(order) if pictures.name[picture] == name)
        off = round(distance[order[rank]].item(), 1)
        ranks.append({"name": name, "group": group, "rank": rank + 1, "off": off})
    return ranks


def judge_backgrounds(model, pictures):
    names = spread(sorted(set(pictures.name)), BACKGROUNDS)
    colours = [k % len(COLOUR_NAMES) for k in range(BACKGROUNDS)]
    prompts = [f"{name}, {COLOUR_NAMES[colour]} background" for name, colour in zip(names, colours)]
    drawn = model.draw(prompts, first_seed=NAMES)
    ends = (slice(0, CORNER), slice(-CORNER, None))
    corners = torch.stack([drawn[:, :, y, x].mean((2, 3)) for y in ends for x in ends], 1)
    found = torch.cdist(corners, COLOUR_VALUES.expand(len(corners), -1, -1)).argmin(2)
    return (found == torch.tensor(colours)[:, None]).all(1).tolist()


@torch.no_grad()
def judge_autoencoder(model, pictures):
    """Median PSNR of each group and of all, over every eighth picture."""
    by_group = defaultdict(list)
    for part in torch.arange(0, len(pictures), 8).split(16):
        picture = pictures.on(part, (part // 8) % len(COLOUR_NAMES))
        again = model.vae.decode(model.vae.encode(picture.to(DEVICE) / 127.5 - 1).latent_dist.mean).sample.cpu()
        error = ((again.clamp(-1, 1) + 1) * 127.5 - picture).square().mean((1, 2, 3))
        for index, value in zip(part.tolist(), (10 * torch.log10(255**2 / error)).tolist()):
            by_group[GROUPS[pictures.group[index]]].append(value)
    by_group["all"] = [value for values in by_group.values() for value in values]
    return {group: round(torch.tensor(values).median().item(), 1) for group, values in by_group.items()}


def draw_sheet(model, path):
    drawn = model.draw(SHEET, first_seed=NAMES + BACKGROUNDS)
    height = SIZE + 14
    sheet = Image.new("RGB", (SIZE * SHEET_COLUMNS, height * -(-len(SHEET) // SHEET_COLUMNS)), "white")
    pen = ImageDraw.Draw(sheet)
    for place, (prompt, picture) in enumerate(zip(SHEET, drawn)):
        x, y = place % SHEET_COLUMNS * SIZE, place // SHEET_COLUMNS * height
        sheet.paste(Image.fromarray(picture.byte().permute(1, 2, 0).numpy()), (x, y))
        pen.text((x + 2, y + SIZE + 1), prompt.replace(" style", "").replace(" background", "")[:24], fill="black")
    sheet.save(path)


def share(truths):
    return round(100 * sum(truths) / len(truths), 1)


def main(model, output, number):
    pictures, numbers = Pictures(), {}
    if isinstance(model, Model):
        numbers["autoencoder"] = judge_autoencoder(model, pictures)
        figures = ", ".join(f"{group} {value}" for group, value in numbers["autoencoder"].items())
        print("autoencoder PSNR, dB:", figures, flush=True)
    ranks = judge_names(model, pictures, number)
    table = {"all": ranks} | {group: [r for r in ranks if r["group"] == group] for group in GROUPS}
    names = {
        group: {
            "top1": share([r["rank"] == 1 for r in some]),
            "top5": share([r["rank"] <= 5 for r in some]),
            "off": median(r["off"] for r in some),
        }
        for group, some in table.items()
        if some
    }
    for group, shares in names.items():
        print(f"names, {group}: top 1 {shares['top1']} %, top 5 {shares['top5']} %, off by {shares['off']:.1f}", flush=True)
    backgrounds = share(judge_backgrounds(model, pictures))
    print(f"backgrounds: {backgrounds} %", flush=True)
    output.mkdir(parents=True, exist_ok=True)
    draw_sheet(model, output / "sheet.png")
    numbers |= {"names": names, "backgrounds": backgrounds, "ranks": ranks}
    (output / "numbers.json").write_text(json.dumps(numbers, indent=1) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Judges a model.")
    parser.add_argument("folder", type=Path, nargs="?", help="diffusers folder")
    parser.add_argument("--kiln", type=Path, help="Kiln's command, in place of diffusers")
    parser.add_argument("--names", type=int, default=NAMES, help="as many prompts of plain names")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "data" / "evaluation")
    said = sys.argv[1:]
    own = said.index("--") if "--" in said else len(said)
    chosen, options = parser.parse_args(said[:own]), said[own + 1 :]
    if (chosen.folder is None) == (chosen.kiln is None) or (options and not chosen.kiln):
        parser.error("give a diffusers folder, or --kiln and options for it")
    main(Kiln(chosen.kiln, options) if chosen.kiln else Model(chosen.folder), chosen.output, chosen.names)
