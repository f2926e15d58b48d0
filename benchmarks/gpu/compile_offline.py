"""Compiles the Triton kernels for an H200 (sm_90) without a GPU, and counts multiply-adds and roots in their PTX.

Triton's wheel includes ptxas. Prints one JSON object for each variant. Without fp fusion the multiply-adds of
`noise_kernel` are those of libdevice, and `update_kernel` must have no others. TRITON_INTERPRET must not be set.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

import triton
from noise_kernel import BLOCK, noise_kernel, update_kernel
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

SM_90 = GPUTarget("cuda", 90, 32)
CONSTANTS = {"BLOCK": BLOCK, "TWO_PI": 2 * math.pi, "INTERPRETED": False}
TABLES = {"samples": "*i64", "key": "*i64", "steps": "*i64", "counter": "*i64", "pixels": "i32"}
UPDATE = {**TABLES, "x": "*fp32", "table": "*fp32", "channels": "i32", "area": "i32"}


def compile_kernel(
    kernel: Any,  # noqa: ANN401 - a triton.JITFunction, which has no type
    types: dict[str, str],
    constants: dict[str, object],
    fusions: Sequence[bool],
) -> Iterator[dict[str, object]]:
    """Compiles a kernel for each setting of fp fusion; yields the counts of each."""
    names = kernel.arg_names
    signature = {name: types.get(name, "constexpr") for name in names}
    source = ASTSource(
        fn=kernel, signature=signature, constexprs={(names.index(name),): value for name, value in constants.items()}
    )
    for fusion in fusions:
        compiled = triton.compile(source, target=SM_90, options={"enable_fp_fusion": fusion, "num_warps": 4})
        ptx = compiled.asm["ptx"]
        yield {
            "kernel": kernel.fn.__name__,
            "eps": types.get("eps"),
            "nhwc": constants.get("NHWC"),
            "fp_fusion": fusion,
            "fused_multiply_adds": len(re.findall(r"fma\.rn(?:\.ftz)?\.f32", ptx)),
            "roots": sorted(set(re.findall(r"sqrt[.\w]+", ptx))),
            "spills_to_local_memory": ".local" in ptx,
            "cubin_bytes": len(compiled.asm["cubin"]),
        }


def variants(*, short: bool) -> Iterator[dict[str, object]]:
    """Compiles all variants, or in short both kernels without fp fusion."""
    fusions = (False,) if short else (True, False)
    yield from compile_kernel(noise_kernel, {**TABLES, "out": "*fp32"}, CONSTANTS, fusions)
    for eps in ("*fp32",) if short else ("*fp32", "*bf16"):
        for nhwc in (False,) if short else (False, True):
            yield from compile_kernel(update_kernel, {**UPDATE, "eps": eps}, {**CONSTANTS, "NHWC": nhwc}, fusions)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="only both kernels without fp fusion, in float32")
    for variant in variants(short=parser.parse_args().short):
        print(json.dumps(variant), flush=True)
