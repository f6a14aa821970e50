#!/usr/bin/env python3
"""How long drawing takes on which board: an estimate, from instructions counted under an emulator.

boards.py count KILN PACKAGE [QEMU-CPU...]   what one evaluation of each graph executes, as JSON; KILN is a static command for
                                             AArch64 or x86-64. Needs gcc and qemu-user.
boards.py model KILN PACKAGE                 what a model multiplies and weighs, as JSON
boards.py page                               the page, from counts.json and the figures below

counts.json holds what the first two have said, with names, steps and lanes:

    kiln compile random:bk-sdm-tiny --size 64x64 -o small.kiln
    boards.py count kiln-aarch64 small.kiln cortex-a53 cortex-a72 cortex-a76
    kiln compile random:sd15 --size 256x256,512x512 -o sd15.kiln
    boards.py model kiln sd15.kiln

The instructions of a multiplication are counted on a small picture of a model with Stable Diffusion 1.5's layers, and taken
for larger pictures too. How many of them a core executes in a cycle, how fast memory is and how fast the clock, are the
makers' and reviewers' figures.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
# MB that the system and the process take besides.
SYSTEM = 150
GRAPHS = ("text_encoder", "unet", "vae_decoder")

# Name, memory in MB, cores, GHz, what it is emulated as, instructions of the kernels in a cycle, GB/s of memory, MB/s of the
# card or disk.
#
# Instructions in a cycle: the Cortex-A53 issues two, and one of 128 bits takes its 64-bit pipe twice; the A72 issues three,
# of which one multiplies; the A76 four, of which two multiply; Haswell four, of which two multiply (the makers' optimization
# guides). Loops wait besides, so about two thirds of what would be possible are assumed.
# Bandwidths: of copies, as published for these boards with `tinymembench` and STREAM, not of the memory's data sheet.
BOARDS = [
    ("Raspberry Pi Zero 2 W", 512, 4, 1.0, "cortex-a53", 0.7, 1.7, 20),
    ("Raspberry Pi 3 B+", 1024, 4, 1.4, "cortex-a53", 0.7, 2.2, 20),
    ("Raspberry Pi 4", 4096, 4, 1.8, "cortex-a72", 1.2, 4.0, 40),
    ("Raspberry Pi 5", 8192, 4, 2.4, "cortex-a76", 2.0, 9.0, 85),
    ("laptop of 2013 (Core i5-4200U)", 8192, 2, 2.3, "Haswell", 2.0, 18.0, 450),
]


def count(kiln, package, cpu, *words):
    """Instructions that one thread executes."""
    machine = subprocess.run(["readelf", "-hW", kiln], check=True, stdout=subprocess.PIPE, text=True).stdout
    emulator = "qemu-aarch64" if "AArch64" in machine else "qemu-x86_64"
    with tempfile.TemporaryDirectory() as folder:
        plugin, out = f"{folder}/libcount.so", f"{folder}/count"
        subprocess.run(["gcc", "-O2", "-shared", "-fPIC", "-o", plugin, HERE / "count.c"], check=True)
        command = [emulator, "-cpu", cpu, "-plugin", plugin, kiln, "bench", package, "--threads", "1", "--json", *words]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env={**os.environ, "COUNT_OUT": out})
        return int(Path(out).read_text()), json.loads(done.stdout)


def counted(kiln, package, cpus):
    """Of each CPU and graph: multiplications, and the instructions of one run, which is what a run more takes."""
    counts = {}
    for cpu in cpus:
        for graph in GRAPHS:
            once, told = count(kiln, package, cpu, "--graph", graph, "--lanes", "1", "--runs", "1")
            twice, _ = count(kiln, package, cpu, "--graph", graph, "--lanes", "1", "--runs", "2")
            counts.setdefault(cpu, {})[graph] = {
                "macs": told[graph]["macs"],
                "instructions": twice - once,
                "isa": told[graph]["isa"],
            }
            print(f"{cpu} {graph}: {counts[cpu][graph]}", file=sys.stderr)
    return counts


def described(kiln, package):
    """Multiplications of each graph by size, bytes of weights, of the UNet's alone, and of the arena."""
    said = [subprocess.run([kiln, *words, "--json", package], check=True, stdout=subprocess.PIPE).stdout for words in (["info"], ["doctor"])]
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


def seconds(board, counts, model, graph, size, lanes):
    """One evaluation of a graph: computing, or where that is more, bringing the UNet's weights from memory."""
    _, _, cores, gigahertz, cpu, per_cycle, bandwidth, _ = board
    one = counts[cpu][graph]
    macs = model["macs"][graph] if graph == "text_encoder" else model["macs"][graph][size]
    instructions = one["instructions"] / one["macs"] * macs * lanes
    computing = instructions / (per_cycle * gigahertz * 1e9 * cores)
    weights = model["step_weights"] if graph == "unet" else 0
    return max(computing, weights / (bandwidth * 1e9))


def told(time):
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
        lines.append(f"\n## {name}\n\n{model['steps']} steps {guided}, {model['weights'] / 1e6:.0f} MB of weights in int8.\n")
        sizes = list(model["macs"]["unet"])
        titles = [title for size in sizes for title in (f"{size}: a step", "a picture")]
        lines.append("| board | " + " | ".join(titles) + " |\n|---|" + "---:|" * len(titles))
        for board in BOARDS:
            cells = []
            for size in sizes:
                step = seconds(board, counts, model, "unet", size, model["lanes"])
                # Where the weights do not stay in memory, each step reads them from the card.
                memory = (model["weights"] + model["allocated"][size]) / 1e6 + SYSTEM
                streamed = memory > board[1]
                if streamed:
                    step = max(step, model["step_weights"] / (board[7] * 1e6))
                rest = seconds(board, counts, model, "vae_decoder", size, 1)
                rest += seconds(board, counts, model, "text_encoder", size, model["lanes"])
                mark = "*" if streamed else ""
                cells += [told(step) + mark, told(step * model["steps"] + rest)]
            lines.append(f"| {board[0]} | " + " | ".join(cells) + " |")
    lines.append(TAIL)
    lines.append("| board | emulated as | kernels | instructions for a multiplication: UNet, VAE | in a cycle | cores x GHz | memory | card or disk |")
    lines.append("|---|---|---|---:|---:|---:|---:|---:|")
    for name, _, cores, gigahertz, cpu, per_cycle, bandwidth, disk in BOARDS:
        one = {graph: counts[cpu][graph]["instructions"] / counts[cpu][graph]["macs"] for graph in GRAPHS}
        lines.append(
            f"| {name} | {cpu} | {counts[cpu]['unet']['isa']} | {one['unet']:.3f}, {one['vae_decoder']:.3f} | {per_cycle} "
            f"| {cores} x {gigahertz} | {bandwidth} GB/s | {disk} MB/s |"
        )
    return "\n".join(lines) + "\n"


HEAD = """\
# Which board, which model, how long

**These are estimates.** Nobody has measured them on these boards. They are computed by [`boards.py`](boards/boards.py) from instructions that
were counted under an emulator and from the makers' and reviewers' figures for clocks and memory, and may be wrong by a factor of two. Measure the truth, which
takes a minute:

```sh
kiln doctor my-model.kiln            # is the board slowed down, does the model fit
kiln bench my-model.kiln --lanes 2   # seconds of each graph: one `unet` is a step
kiln draw "a lighthouse" -m my-model.kiln --steps 2
```

`*`: the weights do not stay in memory beside the rest; with `--ram auto` each step reads them from the card anew."""

TAIL = """
## From what

A step is the larger of its instructions by what the cores execute and its weights by what memory gives, or, under `*`, what the card gives. A picture is its steps,
the decoder and the text encoder once. Boards get hot: without a heat sink a Pi 4 or 5 runs at half its clock after some minutes.
"""


def main():
    match sys.argv[1:]:
        case ["count", kiln, package, *cpus] if cpus:
            print(json.dumps(counted(kiln, package, cpus), indent=1))
        case ["model", kiln, package]:
            print(json.dumps(described(kiln, package), indent=1))
        case ["page"]:
            print(page(json.loads((HERE / "counts.json").read_text())), end="")
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
