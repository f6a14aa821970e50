"""Fetches the pictures and their names and writes data/pictures.npz, data/captions.json and the tokenizer.

    python prepare.py

Needs npm and a Debian system with dpkg-deb (both used through their own configuration), and Pillow with raqm, which
joins the letters of a flag. Every package is pinned by version and SHA-256, so the result is always the same.
"""

import hashlib
import json
import subprocess
import sys
from collections import Counter

import numpy as np
from PIL import Image, ImageDraw, ImageFont, features
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from common import COLOURS, DATA, GROUPS, SIZE, STYLES

FLUENT = ("@lobehub/fluent-emoji-3d@1.1.0", "lobehub-fluent-emoji-3d-1.1.0.tgz", "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58")
EMOJIBASE = ("emojibase-data@17.0.0", "emojibase-data-17.0.0.tgz", "d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a")
EMOJILIB = ("emojilib@4.0.3", "emojilib-4.0.3.tgz", "7f9a6b43cff31d18985b7d65d11faba5bd971cbcc60020cf6d09322fbaaaf303")
NOTO = ("fonts-noto-color-emoji=2.042-0+deb12u1", "fonts-noto-color-emoji_2.042-0+deb12u1_all.deb", "a5ab0f69c7938423862320d9aca5dd187b3fd879d6a9a57dd52e17c3fa8d2751")

# A keyword names a picture only if at most this many emoji share it: "face" alone says too little.
SHARED_BY_AT_MOST = 8
# A picture may be mirrored if its mirror image is nearly itself (RMS difference of the 32x32 alpha and colours).
MIRROR_RMS = 28.0
BPE_VOCABULARY = 5000
# A word's last letter is a letter of its own, moved by this much while the merges are learned: the trainer's own way of
# marking it, a suffix, breaks ties between merges another way each time.
LAST = 0xE000
# A flat picture's longer side, in shares of the square's: what the 3d ones have.
MARGIN = 0.94


def fetch(package):
    """Downloads a package, checks it, and returns the folder it is unpacked in."""
    name, file, sha256 = package
    folder = DATA / "packages"
    folder.mkdir(parents=True, exist_ok=True)
    path, unpacked = folder / file, folder / file.rsplit(".", 1)[0]
    if not path.exists():
        command = ["apt-get", "download", name] if file.endswith(".deb") else ["npm", "pack", "--silent", name]
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != sha256:
        sys.exit(f"{path} has SHA-256 {found}, expected {sha256}")
    if not unpacked.exists():
        unpacked.mkdir()
        unpack = ["dpkg-deb", "-x", path, unpacked] if file.endswith(".deb") else ["tar", "xzf", path, "-C", unpacked]
        subprocess.run(unpack, check=True)
    return unpacked


def flat_picture(emoji, font):
    """The emoji drawn with the font in the middle of the square, or None if the font does not know it."""
    canvas = Image.new("RGBA", (160, 160), (0, 0, 0, 0))  # the font's bitmaps are 136 wide and 128 high
    draw = ImageDraw.Draw(canvas)
    if draw.textlength(emoji, font=font) > 150:  # an unknown sequence is drawn as its parts side by side
        return None
    draw.text((12, 12), emoji, font=font, embedded_color=True)
    box = canvas.getbbox()
    if box is None:
        return None
    drawn = canvas.crop(box)
    scale = SIZE * MARGIN / max(drawn.size)
    drawn = drawn.resize([max(1, round(side * scale)) for side in drawn.size], Image.LANCZOS)
    square = Image.new("RGBA", (SIZE, SIZE), (0, 0, 0, 0))
    square.paste(drawn, ((SIZE - drawn.width) // 2, (SIZE - drawn.height) // 2))
    return square


def bare(code):
    """A sequence's code without the variation selectors, which the sources do not set alike."""
    return code.lower().replace("-fe0f", "")


def mirrors(picture):
    small = picture.resize((32, 32), Image.BOX)
    pixels = np.asarray(small, dtype=np.float32)
    pixels[..., :3] *= pixels[..., 3:] / 255
    return bool(np.sqrt(((pixels - pixels[:, ::-1]) ** 2).mean()) < MIRROR_RMS)


def synonyms(entry, name, library, sharing):
    """Other names: the keywords few emoji share, and the name said another way."""
    found = [word for word in keywords(entry, library) if sharing[word] <= SHARED_BY_AT_MOST]
    if ": " in name:
        kind, what = name.split(": ", 1)
        found += [f"flag of {what}", f"{what} flag"] if kind == "flag" else [name.replace(":", "")]
    return [word for word in dict.fromkeys(found) if word != name]


def keywords(entry, library):
    words = entry.get("tags", []) + library.get(entry["emoji"], [])
    return list(dict.fromkeys(word.replace("_", " ").lower() for word in words))


def train_tokenizer(texts, folder):
    """CLIP's tokenizer, byte-level BPE of lower-cased words ending in </w>, with a vocabulary of our own."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    splitter = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(words), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    split = [
        word[:-1] + chr(LAST + ord(word[-1]))
        for text in texts
        for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))
    ]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(
        vocab_size=BPE_VOCABULARY,
        min_frequency=2,
        initial_alphabet=alphabet,
        special_tokens=[],
        show_progress=False,
    )
    tokenizer.train_from_iterator(split, trainer)
    trained = json.loads(tokenizer.to_str())["model"]

    def spell(token):
        return "".join(c if ord(c) < LAST else chr(ord(c) - LAST) + "</w>" for c in token)

    vocabulary = {spell(token): number for token, number in trained["vocab"].items()}
    folder.mkdir(parents=True, exist_ok=True)
    merges = [" ".join(map(spell, pair)) for pair in trained["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")

    # As in CLIP, every byte has a twin that ends a word, and the two special tokens come last.
    for symbol in alphabet:
        for token in (symbol, symbol + "</w>"):
            vocabulary.setdefault(token, len(vocabulary))
    for token in ("<|startoftext|>", "<|endoftext|>"):
        vocabulary[token] = len(vocabulary)
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False))
    clip = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=77)
    clip.save_pretrained(folder)
    return len(vocabulary)


def main():
    if not features.check("raqm"):
        sys.exit("this Pillow has no raqm, so flags cannot be drawn")
    entries = json.loads((fetch(EMOJIBASE) / "package/en/data.json").read_text())
    entries = [entry for entry in entries if entry.get("group") is not None]
    library = json.loads((fetch(EMOJILIB) / "package/dist/emoji-en-US.json").read_text())
    fluent = {bare(path.stem): path for path in (fetch(FLUENT) / "package/assets").iterdir()}
    noto = ImageFont.truetype(fetch(NOTO) / "usr/share/fonts/truetype/noto/NotoColorEmoji.ttf", 109)
    sharing = Counter(word for entry in entries for word in keywords(entry, library))

    pictures, captions, style, group = [], [], [], []
    for entry in entries:
        name = entry["label"].lower()
        caption = {"name": name, "synonyms": synonyms(entry, name, library, sharing)}
        drawn = [None, flat_picture(entry["emoji"], noto)]
        if path := fluent.get(bare(entry["hexcode"])):
            drawn[0] = Image.open(path).convert("RGBA").resize((SIZE, SIZE), Image.LANCZOS)
        for kind, picture in enumerate(drawn):
            if picture is not None:
                pictures.append(picture)
                captions.append(caption)
                style.append(kind)
                group.append(entry["group"])
    may_mirror = [GROUPS[g] not in ("symbols", "flags") and mirrors(p) for g, p in zip(group, pictures)]
    np.savez(
        DATA / "pictures.npz",
        rgba=np.stack([np.asarray(picture) for picture in pictures]),
        style=np.array(style),
        group=np.array(group),
        mirrors=np.array(may_mirror),
    )
    (DATA / "captions.json").write_text(json.dumps(captions, indent=0))

    texts = [", ".join([caption["name"], *caption["synonyms"]]) for caption in captions]
    texts += [f"a {colour} background, 3d style, flat style" for colour in COLOURS] * 50
    vocabulary = train_tokenizer(texts, DATA / "tokenizer")

    print(f"{len(pictures)} pictures of {len({caption['name'] for caption in captions})} names, "
          f"{sum(may_mirror)} of them may be mirrored, vocabulary {vocabulary}")
    for kind, name in enumerate(STYLES):
        counts = Counter(g for g, s in zip(group, style) if s == kind)
        print(f"{name}: " + ", ".join(f"{GROUPS[g]} {counts[g]}" for g in sorted(counts)))


if __name__ == "__main__":
    main()
