"""Compares what Kiln draws with what diffusers draws, from the same seeds and so the same noise.

    python compare.py DIFFUSERS_FOLDER KILN [--model FILE.kiln] [--output FOLDER]

The prompts are those of evaluate.py's sheet, with its steps and guidance. diffusers computes in float32; KILN is the command,
with the model inside it or that of FILE.kiln, in int8. Writes pairs.png, each prompt's picture by diffusers left of Kiln's,
and prints each pair's PSNR, the median and the worst.
"""

import argparse
from pathlib import Path
from statistics import median

import torch
from PIL import Image, ImageDraw

from common import SIZE
from evaluate import BACKGROUNDS, GUIDANCE, NAMES, SHEET, STEPS, Kiln, Model

FIRST_SEED = NAMES + BACKGROUNDS
COLUMNS = 4


def image(picture):
    return Image.fromarray(picture.byte().permute(1, 2, 0).numpy())


def main(folder, command, package, output):
    output.mkdir(parents=True, exist_ok=True)
    options = ["--steps", str(STEPS), "--guidance-scale", str(GUIDANCE), "--sampler", "ddim"]
    ours = Kiln(command, options + (["--model", package] if package else [])).draw(SHEET, FIRST_SEED)
    theirs = Model(folder).draw(SHEET, FIRST_SEED)
    figures = (10 * torch.log10(255**2 / (ours - theirs).square().mean((1, 2, 3)))).tolist()
    height, width = SIZE + 14, 2 * SIZE + 8
    sheet = Image.new("RGB", (width * COLUMNS, height * -(-len(SHEET) // COLUMNS)), "white")
    pen = ImageDraw.Draw(sheet)
    for index, (prompt, left, right, figure) in enumerate(zip(SHEET, theirs, ours, figures)):
        print(f"{figure:5.1f} dB  {prompt}")
        x, y = index % COLUMNS * width, index // COLUMNS * height
        sheet.paste(image(left), (x, y))
        sheet.paste(image(right), (x + SIZE, y))
        pen.text((x + 2, y + SIZE + 1), f"{prompt}: {figure:.1f} dB", fill="black")
    sheet.save(output / "pairs.png")
    print(f"median {median(figures):.1f} dB, worst {min(figures):.1f} dB, of {len(figures)} pictures")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Compares Kiln with diffusers.")
    parser.add_argument("folder", type=Path, help="diffusers folder")
    parser.add_argument("kiln", type=Path, help="the command")
    parser.add_argument("--model", type=Path, help="a package, in place of the model inside the command")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "data" / "evaluation")
    chosen = parser.parse_args()
    main(chosen.folder, chosen.kiln, chosen.model, chosen.output)
