#!/usr/bin/env python3
"""How long drawing takes on which board: an estimate, from instructions counted under an emulator.

boards.py page                                           the page anew, from counts.json and the figures below
boards.py model KILN PACKAGE NAME SOURCE STEPS LANES     the same, with what that model multiplies and weighs put into counts.json

NAME is its title, SOURCE what it was compiled from, LANES 2 with guidance and 1 without.

counts.json also has the instructions and the multiplications of two products, as the program of `benches/arm` executes them
on each CPU: `count gemm 256x640x640` and `count conv 16x16x320x320`, one run less none. Cores and clocks are the makers' figures;
what a core executes in a cycle, bandwidths and cards are assumed, for the reasons below.
"""

import json
import subprocess
import sys
from pathlib import Path

COUNTS = Path(__file__).with_name("counts.json")
PAGE = Path(__file__).resolve().parent.with_suffix(".md")
GRAPHS = ("text_encoder", "unet", "vae_decoder")

# MB that the system and the process take besides.
SYSTEM = 150
# What attention, norms and the rest take beside their multiplications: on x86-64, where it is measured, a UNet of SD 1.5 at
# 512x512 takes 1.09 times what its products' rate would give; small cores have less cache.
REST = 1.2
# Multiplications of int8 in a cycle of an x86 core with AVX2, measured: SD 1.5's UNet at 82 GMAC/s on a core of an EPYC of 2.6
# GHz, which is 31 in a cycle (convolutions in tiles count more than they multiply); half of that for a core that multiplies 16
# bits once a cycle, not twice.
AVX2 = 15.5

# Name, memory in MB, cores, GHz, what it is emulated as, instructions of the kernels in a cycle, GB/s of memory, MB/s of the
# card or disk.
#
# Instructions in a cycle: the Cortex-A53 issues two, and one of 128 bits takes its 64-bit pipe twice; the A72 issues three,
# of which one multiplies; the A76 four, of which two multiply (the makers' optimization guides). Loops wait besides, so about
# two thirds of what would be possible are assumed. Memory: what copies are seen to reach, a third to a half of the data sheet's.
# Cards: four fifths of what the board's slot can do (25 MB/s at 50 MHz, 50 at DDR50, 104 at SDR104).
BOARDS = [
    ("Raspberry Pi Zero 2 W", 512, 4, 1.0, "cortex-a53", 0.7, 1.7, 20),
    ("Raspberry Pi 3 B+", 1024, 4, 1.4, "cortex-a53", 0.7, 2.2, 20),
    ("Raspberry Pi 4", 4096, 4, 1.8, "cortex-a72", 1.2, 4.0, 40),
    ("Raspberry Pi 5", 8192, 4, 2.4, "cortex-a76", 2.0, 9.0, 85),
    ("laptop of 2013 (Core i5-4200U)", 8192, 2, 2.3, None, None, 18.0, 450),
]


def described(kiln, package):
    """Multiplications of each graph by size, bytes of all weights and of those a step reads, and what is allocated."""
    words = (["info"], ["doctor"])
    said = [subprocess.run([kiln, *one, "--json", package], check=True, stdout=subprocess.PIPE).stdout for one in words]
    info, doctor = map(json.loads, said)
    macs = {graph: {} for graph in GRAPHS}
    for graph in info["graphs"]:
        if graph["graph"] in macs:
            macs[graph["graph"]][f"{graph['width']}x{graph['height']}"] = graph["macs"]
    return {
        "macs": {**macs, "text_encoder": macs["text_encoder"]["0x0"]},
        "weights": info["weight_bytes"],
        "step_weights": doctor["packages"][0]["step_weight_bytes"],
        "allocated": {f"{size['width']}x{size['height']}": size["arena_bytes"] + size["scratch_bytes"] for size in info["sizes"]},
    }


def instructions(count):
    """Of a multiplication: the mean of linear layers and convolutions, which halve a UNet's work about."""
    return sum(count[kind]["instructions"] / count[kind]["macs"] for kind in ("linear", "conv")) / 2


def computing(board, counts, macs):
    _, _, cores, gigahertz, cpu, per_cycle, _, _ = board
    cycles = REST * macs * (instructions(counts[cpu]) / per_cycle if cpu else 1 / AVX2)
    return cycles / (gigahertz * 1e9 * cores)


def times(board, counts, model, size):
    """A step, a picture, and whether weights are read from the card in each step."""
    _, memory, _, _, _, _, bandwidth, disk = board
    macs, lanes = model["macs"], model["lanes"]
    streamed = (model["weights"] + model["allocated"][size]) / 1e6 + SYSTEM > memory
    reading = model["step_weights"] / (disk * 1e6 if streamed else bandwidth * 1e9)
    step = max(computing(board, counts, macs["unet"][size] * lanes), reading)
    once = computing(board, counts, macs["vae_decoder"][size] + macs["text_encoder"] * lanes)
    # The decoder's weights and the text encoder's are read once.
    once += (model["weights"] - model["step_weights"]) / (disk * 1e6) if streamed else 0
    return step, step * model["steps"] + once, streamed


def told(time):
    if time < 0.1:
        return f"{1e3 * time:.0f} ms"
    if time < 10:
        return f"{time:.1f} s"
    if time < 120:
        return f"{time:.0f} s"
    if time < 7200:
        return f"{time / 60:.0f} min"
    return f"{time / 3600:.1f} h"


def page(data):
    counts, models = data["counts"], data["models"]
    lines = [HEAD]
    for name, model in models.items():
        guided = "with guidance" if model["lanes"] == 2 else "without guidance"
        weights = f"{model['weights'] / 1e6:.0f} MB of weights in int8"
        lines.append(f"\n## {name}\n\n`{model['source']}`, {model['steps']} steps {guided}, {weights}.\n")
        sizes = list(model["macs"]["unet"])
        titles = [title for size in sizes for title in (f"{size}: a step", "a picture")]
        lines.append("| board | " + " | ".join(titles) + " |\n|---|" + "---:|" * len(titles))
        for board in BOARDS:
            cells = []
            for size in sizes:
                step, picture, streamed = times(board, counts, model, size)
                cells += [told(step) + ("*" if streamed else ""), told(picture)]
            lines.append(f"| {board[0]} | " + " | ".join(cells) + " |")
    lines.append(TAIL.format(rest=REST, avx2=AVX2))
    lines.append("| board | kernels | instructions of a multiplication | in a cycle | cores x GHz | memory | card or disk |")
    lines.append("|---|---|---:|---:|---:|---:|---:|")
    for name, _, cores, gigahertz, cpu, per_cycle, bandwidth, disk in BOARDS:
        kernels = f"{counts[cpu]['isa']} ({cpu})" if cpu else "avx2"
        one = f"{instructions(counts[cpu]):.3f}" if cpu else f"1/{AVX2:g} cycle"
        lines.append(
            f"| {name} | {kernels} | {one} | {per_cycle or ''} | {cores} x {gigahertz} | {bandwidth} GB/s | {disk} MB/s |"
        )
    return "\n".join(lines) + "\n"


HEAD = """\
# Which board, which model, how long

**These are estimates.** Nobody has measured them on these boards. [`boards.py`](boards/boards.py) computes them from instructions that were
counted under an emulator, from the makers' figures for cores and clocks, and from assumptions that stand below; they may be wrong by a factor of two. To
measure the truth takes a minute:

```sh
kiln doctor my-model.kiln                                   # is the board slowed down, does the model fit
kiln bench my-model.kiln --lanes 2                          # seconds of each graph; one `unet` is a step with guidance
kiln draw "a lighthouse" -m my-model.kiln --steps 2         # says how long it took
```

`*`: the weights do not stay in memory beside the rest; with `--ram auto` each step reads them from the card anew."""

TAIL = """
## From what

A step is the larger of two times: its multiplications by their instructions and what the cores execute, times {rest} for attention, norms and the rest; and its
weights by what memory gives or, under `*`, what the card gives. A picture is its steps, the decoder and the text encoder. Where weights are read anew the decoder's
and the text encoder's are too, once. Boards get hot: without a heat sink a Pi 4 or 5 may run at half its clock after some minutes; `kiln doctor` says so.
"""


def main():
    data = json.loads(COUNTS.read_text())
    match sys.argv[1:]:
        case ["page"]:
            pass
        case ["model", kiln, package, name, source, steps, lanes]:
            said = {"source": source, "steps": int(steps), "lanes": int(lanes)}
            data["models"][name] = said | described(kiln, package)
            COUNTS.write_text(json.dumps(data, indent=1) + "\n")
        case _:
            sys.exit(__doc__)
    PAGE.write_text(page(data))


if __name__ == "__main__":
    main()
