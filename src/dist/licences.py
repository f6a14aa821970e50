#!/usr/bin/env python3
"""The licences of everything that is linked into the command, as text.

licences.py --target TARGET --features A,B     from Cargo.lock, through `cargo tree`; build scripts, procedural macros and
                                               tests are no part of the command and left out
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

TEXTS = ("licen", "copying", "notice", "unlicense", "copyright")

# What the linker adds besides crates.
STD = "The Rust standard library: MIT OR Apache-2.0, with the licences of its parts; see https://www.rust-lang.org/policies/licenses."
C_LIBRARY = {
    "gnu": """\
The GNU C library, linked statically: LGPL-2.1-or-later; its source is Debian's package glibc. Kiln's own source and `.ci/dist`
are what it takes to link the command anew with another version of it.
""",
    "musl": """\
musl, linked statically: MIT; Copyright 2005-2020 Rich Felker, et al. LLVM's libunwind: Apache-2.0 WITH LLVM-exception.
""",
}


def cargo(*words):
    return subprocess.run(["cargo", *words], check=True, stdout=subprocess.PIPE, text=True).stdout


def linked(target, features):
    """Names and versions of the packages that the command is linked from, as Cargo resolves features without tests."""
    tree = ["tree", "--locked", "--edges", "normal,no-proc-macro", "--prefix", "none", "--format", "{p}"]
    tree += ["--target", target, "--no-default-features", "--features", features]
    lines = (line.split() for line in cargo(*tree).splitlines())
    return {(words[0], words[1].removeprefix("v")) for words in lines if words}


def texts(package):
    folder = Path(package["manifest_path"]).parent
    files = [path for path in folder.iterdir() if path.is_file() and path.name.lower().startswith(TEXTS)]
    return [path.read_text(errors="replace").strip() for path in sorted(files)]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--target", required=True)
    parser.add_argument("--features", default="")
    arguments = parser.parse_args()

    data = json.loads(cargo("metadata", "--format-version", "1", "--locked", "--filter-platform", arguments.target))
    wanted = linked(arguments.target, arguments.features)
    own = set(data["workspace_members"])
    packages = [
        package
        for package in data["packages"]
        if package["id"] not in own and (package["name"], package["version"]) in wanted
    ]
    packages.sort(key=lambda package: (package["name"], package["version"]))
    without = [package["name"] for package in packages if not (package["license"] or package["license_file"])]
    if without:
        sys.exit(f"no licence is stated by: {', '.join(without)}")

    print("What is linked into kiln, and its licences. The texts follow, each once.\n")
    numbers, users = {}, {}
    for package in packages:
        found = texts(package)
        for text in found:
            users.setdefault(text, []).append(package["name"])
        marks = [f"[{numbers.setdefault(text, len(numbers) + 1)}]" for text in found]
        name = f"{package['name']} {package['version']}"
        print(f"{name:<40} {package['license'] or 'see text'} {' '.join(marks)}".rstrip())
    print(f"\n{STD}\n\n{C_LIBRARY[arguments.target.rpartition('-')[2]]}")
    for text, number in numbers.items():
        print(f"{'-' * 78}\n[{number}] {', '.join(users[text])}\n\n{text}\n")


if __name__ == "__main__":
    main()
