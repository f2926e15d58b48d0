"""Reads what decides the kernels of a machine, and so the last bits of its samples: see `job.Hardware`.

torch, oneDNN and MKL each choose their kernels by the CPU's instruction sets, and each obeys an environment variable of
its own. Only `find_hardware` for device cuda imports torch; the rest needs the standard library.
"""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from ddpm_inference.job import Device, Hardware

CPU_INFO = Path("/proc/cpuinfo")
MAX_NAME_LENGTH = 80
ATEN_VARIABLE = "ATEN_CPU_CAPABILITY"
ONEDNN_VARIABLES = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
MKL_VARIABLES = ("MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS")

_AVX512_CORE = frozenset({"avx512f", "avx512bw", "avx512vl", "avx512dq"})
# oneDNN's instruction sets, smallest first, and flags of a CPU that has them: `cpu_isa_traits.hpp` of oneDNN. The names
# are the values of ONEDNN_MAX_CPU_ISA. Larger ones than these differ in 8-bit and 16-bit arithmetic only.
_ONEDNN_ISAS: tuple[tuple[str, frozenset[str]], ...] = (
    ("SSE41", frozenset({"sse4_1"})),
    ("AVX", frozenset({"avx"})),
    ("AVX2", frozenset({"avx2", "fma"})),
    ("AVX2_VNNI", frozenset({"avx2", "fma", "avx_vnni"})),
    ("AVX2_VNNI_2", frozenset({"avx2", "fma", "avx_vnni", "avx_vnni_int8", "avx_ne_convert"})),
    ("AVX512_CORE", _AVX512_CORE),
    ("AVX512_CORE_VNNI", _AVX512_CORE | {"avx512_vnni"}),
    ("AVX512_CORE_BF16", _AVX512_CORE | {"avx512_vnni", "avx512_bf16"}),
    ("AVX512_CORE_FP16", _AVX512_CORE | {"avx512_vnni", "avx512_bf16", "avx512_fp16"}),
    (
        "AVX512_CORE_AMX",
        _AVX512_CORE | {"avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16"},
    ),
)
_ONEDNN_ORDER = tuple(name for name, _ in _ONEDNN_ISAS)


class Cpu(NamedTuple):
    """A CPU: its vendor, or on ARM the codes of implementer and part, and its flags in lower case."""

    vendor: str
    flags: frozenset[str]


def find_hardware(device: Device) -> Hardware | None:
    """Returns the hardware of this machine, as far as it decides samples that are drawn on `device`.

    On cuda the CPU folds the network before the first step, so its vendor counts, and MKL.

    Returns:
        None if it cannot be found out: no ``/proc/cpuinfo``, or torch sees no GPU.
    """
    cpu = find_cpu()
    if cpu is None:
        return None
    vendor, mkl = _name(cpu.vendor), mkl_limit(os.environ)
    if device == "cuda":
        gpu = _gpu()
        return gpu and gpu.model_copy(update={"cpu_vendor": vendor, "mkl": mkl})
    return Hardware(
        cpu_vendor=vendor,
        aten=aten_capability(cpu.flags, os.environ),
        onednn=onednn_isa(cpu.flags, os.environ),
        mkl=mkl,
    )


def find_cpu(cpu_info: Path = CPU_INFO) -> Cpu | None:
    """Reads the first CPU of ``/proc/cpuinfo``; None if there is no such file."""
    try:
        lines = cpu_info.read_text(errors="replace").splitlines()
    except OSError:
        return None
    fields: dict[str, str] = {}
    for line in lines:
        key, separator, value = line.partition(":")
        if separator:
            fields.setdefault(key.strip().lower(), value.strip())
    arm = " ".join(fields[key] for key in ("cpu implementer", "cpu part") if key in fields)
    vendor = fields.get("vendor_id") or arm or platform.machine()
    return Cpu(vendor, frozenset((fields.get("flags") or fields.get("features") or "").lower().split()))


def aten_capability(flags: frozenset[str], environment: Mapping[str, str]) -> str:
    """Returns the capability of torch's own kernels, as ``compute_cpu_capability`` in its DispatchStub.cpp finds it."""
    requested = environment.get(ATEN_VARIABLE, "")
    if requested in ({"avx512", "avx2", "default"} if "sse2" in flags else {"default", "sve256"}):
        return requested.upper()
    if {"avx512vl", "avx512bw", "avx512dq", "fma"} <= flags:
        return "AVX512"
    if {"avx2", "fma"} <= flags:
        return "AVX2"
    return "SVE" if "sve" in flags else "DEFAULT"


def onednn_isa(flags: frozenset[str], environment: Mapping[str, str]) -> str:
    """Returns the largest instruction set that oneDNN uses: of those of the CPU, within the environment's limit."""
    found = [name for name, needed in _ONEDNN_ISAS if needed <= flags]
    limit = next((environment[name].upper() for name in ONEDNN_VARIABLES if environment.get(name)), "")
    if limit in _ONEDNN_ORDER:
        found = [name for name in found if _ONEDNN_ORDER.index(name) <= _ONEDNN_ORDER.index(limit)]
    if found:
        return found[-1]
    return "SVE" if "sve" in flags else "NONE"


def mkl_limit(environment: Mapping[str, str]) -> str | None:
    """Returns the variables that limit MKL, such as ``MKL_CBWR=AVX2``; None if there are none."""
    limits = [f"{name}={environment[name].upper()}" for name in MKL_VARIABLES if environment.get(name)]
    return _name(" ".join(limits)) if limits else None


def _gpu() -> Hardware | None:
    import torch

    if not torch.cuda.is_available():
        return None
    major, minor = torch.cuda.get_device_capability()
    cudnn: int | None = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    return Hardware(
        gpu=_name(torch.cuda.get_device_name()),
        compute_capability=f"{major}.{minor}",
        cudnn=str(cudnn) if cudnn else None,
        cublas=_cublas_version(torch.version.cuda),
    )


def _cublas_version(cuda: str | None) -> str | None:
    """Returns the version of the cuBLAS that torch has loaded; its library has the major version of CUDA."""
    if cuda is None:
        return None
    try:
        library = ctypes.CDLL(f"libcublas.so.{cuda.partition('.')[0]}")
        parts = [ctypes.c_int() for _ in range(3)]
        for index, part in enumerate(parts):  # of libraryPropertyType: major, minor, patch
            if library.cublasGetProperty(index, ctypes.byref(part)):
                return None
    except (OSError, AttributeError):
        return None
    return ".".join(str(part.value) for part in parts)


def _name(text: str) -> str:
    return text[:MAX_NAME_LENGTH].strip() or "unknown"
