"""Compares what Kiln draws with what diffusers draws, from the same seeds and so the same noise.

    python compare.py DIFFUSERS_FOLDER KILN [--model FILE.kiln] [--output FOLDER]

The prompts are those of evaluate.py's sheet: 20 DDIM steps, guidance 4. diffusers computes in float32; KILN is the command,
with the model inside it or that of FILE.kiln, in int8. Writes pairs.png, each prompt's picture by diffusers left of Kiln's,
and prints each pair's PSNR, the median and the worst.
"""

import argparse
import os
import subprocess
import tempfile
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
from PIL import Image, ImageDraw

from common import SIZE
from evaluate import BACKGROUNDS, GUIDANCE, NAMES, SHEET, STEPS, Model

FIRST_SEED = NAMES + BACKGROUNDS
COLUMNS = 4


def by_kiln(command, package, prompt, seed, folder):
    path = Path(folder) / "picture.png"
    options = ["--seed", str(seed), "--steps", str(STEPS), "--guidance-scale", str(GUIDANCE), "--sampler", "ddim", "-o", str(path)]
    if package:
        options += ["--model", str(package)]
    subprocess.run([str(command), "draw", prompt, *options], check=True, capture_output=True)
    with Image.open(path) as picture:
        return np.array(picture.convert("RGB"))


def psnr(one, other):
    error = np.square(one.astype(np.float64) - other).mean()
    return 10 * np.log10(255**2 / error) if error else float("inf")


def main(folder, command, package, output):
    output.mkdir(parents=True, exist_ok=True)
    drawn = Model(folder).draw(SHEET, FIRST_SEED).byte().permute(0, 2, 3, 1).numpy()
    height, width = SIZE + 14, 2 * SIZE + 8
    sheet = Image.new("RGB", (width * COLUMNS, height * -(-len(SHEET) // COLUMNS)), "white")
    pen = ImageDraw.Draw(sheet)
    figures = []
    with tempfile.TemporaryDirectory() as place:
        for index, (prompt, theirs) in enumerate(zip(SHEET, drawn)):
            ours = by_kiln(command, package, prompt, FIRST_SEED + index, place)
            figures.append(psnr(theirs, ours))
            print(f"{figures[-1]:5.1f} dB  {prompt}", flush=True)
            x, y = index % COLUMNS * width, index // COLUMNS * height
            sheet.paste(Image.fromarray(theirs), (x, y))
            sheet.paste(Image.fromarray(ours), (x + SIZE, y))
            pen.text((x + 2, y + SIZE + 1), f"{prompt[:34]}: {figures[-1]:.1f} dB", fill="black")
    sheet.save(output / "pairs.png")
    print(f"median {np.median(figures):.1f} dB, worst {min(figures):.1f} dB, of {len(figures)} pictures")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Compares Kiln with diffusers.")
    parser.add_argument("folder", type=Path, help="diffusers folder")
    parser.add_argument("kiln", type=Path, help="the command")
    parser.add_argument("--model", type=Path, help="a package, in place of the model inside the command")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "data" / "evaluation")
    chosen = parser.parse_args()
    torch.set_num_threads(2)
    main(chosen.folder, chosen.kiln, chosen.model, chosen.output)
