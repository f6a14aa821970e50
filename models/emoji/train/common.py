"""What the scripts share: where things lie, the named colours, the pictures and their captions."""

import json
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).parent
DATA = HERE / "data"
CHECKPOINTS = HERE / "checkpoints"
SIZE = 256

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
        rgba = self.rgba[indices].float()
        alpha = rgba[:, 3:] / 255
        return rgba[:, :3] * alpha + COLOUR_VALUES[colours][:, :, None, None] * (1 - alpha)


def next_time(text):
    """The next moment at which a clock in UTC shows HH:MM, in seconds since 1970."""
    hour, minute = map(int, text.split(":"))
    now = datetime.now(timezone.utc)
    moment = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
    return (moment if moment > now else moment + timedelta(days=1)).timestamp()
