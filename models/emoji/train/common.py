"""What the scripts share: where things lie, the named colours, the pictures and their captions, the length of a training."""

import json
import math
import signal
import time
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).parent
DATA = HERE / "data"
CHECKPOINTS = HERE / "checkpoints"
SIZE = 256
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")

GROUPS = (
    "smileys", "people", "components", "animals", "food", "travel", "activities", "objects", "symbols", "flags",
)
STYLES = ("3d", "flat")
COLOURS = {
    "white": (255, 255, 255),
    "black": (20, 20, 20),
    "gray": (150, 150, 150),
    "red": (214, 48, 49),
    "orange": (240, 140, 40),
    "yellow": (250, 215, 70),
    "green": (70, 170, 90),
    "teal": (60, 170, 170),
    "blue": (50, 110, 220),
    "purple": (130, 80, 190),
    "pink": (245, 150, 190),
    "brown": (130, 90, 60),
}
COLOUR_NAMES = tuple(COLOURS)
COLOUR_VALUES = torch.tensor(list(COLOURS.values())).float()

BETAS = dict(num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")


class Pictures:
    """The prepared pictures: `rgba` is uint8 [count, 4, 256, 256]; the lists have one entry a picture."""

    def __init__(self):
        stored = np.load(DATA / "pictures.npz")
        self.rgba = torch.from_numpy(stored["rgba"]).permute(0, 3, 1, 2).contiguous()
        self.style = stored["style"].tolist()
        self.group = stored["group"].tolist()
        self.mirrors = stored["mirrors"].tolist()
        captions = json.loads((DATA / "captions.json").read_text())
        self.name = [caption["name"] for caption in captions]
        self.synonyms = [caption["synonyms"] for caption in captions]

    def __len__(self):
        return len(self.rgba)

    def on(self, indices, colours):
        """The pictures composed on backgrounds (indices of COLOURS): float [n, 3, 256, 256] in 0..255."""
        return self.compose(self.rgba[indices], colours)

    @staticmethod
    def compose(rgba, colours):
        rgba = rgba.float()
        alpha = rgba[:, 3:] / 255
        return rgba[:, :3] * alpha + COLOUR_VALUES.to(rgba.device)[colours][:, :, None, None] * (1 - alpha)


def arithmetic():
    """bfloat16 on a GPU, else float32."""
    return torch.autocast(DEVICE.type, torch.bfloat16, enabled=DEVICE.type == "cuda")


def compiled(function):
    """The function, compiled where that pays: on a GPU."""
    return torch.compile(function, dynamic=False) if DEVICE.type == "cuda" else function


class Clock:
    """How long a training is, and what it says on its way.

    Its length in steps is given, or, to fit into a number of seconds, set after MEASURED steps by their speed; once
    set it is part of the checkpoint, for the learning rate follows from it. Stops at SIGTERM and ctrl-C as well.
    """

    UNMEASURED, MEASURED, EVERY, SAVE_SECONDS = 20, 60, 50, 60

    def __init__(self, step, steps, seconds):
        self.begun = self.saved = self.logged = time.time()
        self.step, self.first, self.steps, self.seconds = step, step, steps, seconds
        self.stopped = False
        self.losses = torch.zeros((), device=DEVICE)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.stop)

    def stop(self, *_):
        self.stopped = True

    def running(self):
        return not self.stopped and self.step < (self.steps or math.inf)

    def part(self):
        """How much of the training is done; nothing while its length is unknown, in the warm-up."""
        return self.step / self.steps if self.steps else 0.0

    def measure(self, done):
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()
        now = time.time()
        if done == self.UNMEASURED:
            self.measured = now
            return
        step = (now - self.measured) / (self.MEASURED - self.UNMEASURED)
        self.steps = self.step + max(1, int((self.seconds - (now - self.begun)) / step))
        print(f"{step * 1e3:.1f} ms a step: {self.steps} steps", flush=True)

    def advance(self, loss):
        """Counts a step; prints the mean of the losses, for which it waits for the GPU, now and then."""
        self.step += 1
        self.losses += loss
        done = self.step - self.first
        if self.steps is None and done in (self.UNMEASURED, self.MEASURED):
            self.measure(done)
        if self.step % self.EVERY == 0:
            mean, now = self.losses.item() / self.EVERY, time.time()
            speed = self.EVERY / (now - self.logged)
            print(f"{now - self.begun:6.1f} s step {self.step} of {self.steps} loss {mean:.4f} {speed:.1f} steps/s", flush=True)
            self.losses.zero_()
            self.logged = now

    def to_save(self):
        if time.time() - self.saved < self.SAVE_SECONDS:
            return False
        self.saved = time.time()
        return True
