"""One reader under libFuzzer: `python -m tests.fuzz.engine READER [FILE | -libfuzzer_option=…]`.

A reader's file here holds `seeds()`, `one(data)`, which raises if the reader does with the bytes what it must not,
and `mutate(data, most, seed)`. An input may take 10 seconds and the process 4 GiB.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import atheris

LIMITS = ("-timeout=10", "-rss_limit_mb=4096", "-max_len=65536", "-len_control=0", "-print_final_stats=1")


def main(reader: str, *options: str) -> None:
    folder = Path(__file__).resolve().parents[2] / "build" / "fuzz" / reader
    corpus = folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    with atheris.instrument_imports(include=["ddpm_inference", "ddpm_operator", "zipfile", "pickletools"]):
        target = importlib.import_module(f"tests.fuzz.{reader}")
    for index, seed in enumerate(target.seeds()):
        target.one(seed)
        (corpus / f"seed-{index}").write_bytes(seed)
    inputs = [] if any(not option.startswith("-") for option in options) else [str(corpus)]
    arguments = [sys.argv[0], *LIMITS, f"-artifact_prefix={folder}/", *options, *inputs]
    atheris.Setup(arguments, target.one, custom_mutator=target.mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
