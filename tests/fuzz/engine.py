"""Runs one target under libFuzzer: `python -m tests.fuzz.engine TARGET [FILE | -libfuzzer_option=…]`.

A target is a module here with three functions:

- `seeds()` yields the initial inputs.
- `fuzz_one(data)` passes an input to the parser, and raises if the parser does not behave as it must.
- `mutate(data, max_length, seed)` returns a changed input.

An input may take 10 seconds, and the process 4 GiB of memory.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import atheris

LIMITS = ("-timeout=10", "-rss_limit_mb=4096", "-max_len=65536", "-len_control=0", "-print_final_stats=1")


def main(name: str, *options: str) -> None:
    folder = Path(__file__).resolve().parents[2] / "build" / "fuzz" / name
    corpus = folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    with atheris.instrument_imports(include=["ddpm_inference", "ddpm_operator", "zipfile", "pickletools"]):
        target = importlib.import_module(f"tests.fuzz.{name}")
    for index, seed in enumerate(target.seeds()):
        target.fuzz_one(seed)
        (corpus / f"seed-{index}").write_bytes(seed)
    inputs = [] if any(not option.startswith("-") for option in options) else [str(corpus)]
    arguments = [sys.argv[0], *LIMITS, f"-artifact_prefix={folder}/", *options, *inputs]
    atheris.Setup(arguments, target.fuzz_one, custom_mutator=target.mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
