"""Hardware: what decides the kernels is found without torch, and agrees with what torch and oneDNN say themselves."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from ddpm_inference import hardware
from ddpm_inference.hardware import aten_capability, find_cpu, find_hardware, mkl_limit, onednn_isa

AVX2 = frozenset(["sse2", "sse4_1", "avx", "fma", "avx2"])
AVX512 = AVX2 | frozenset(["avx512f", "avx512bw", "avx512vl", "avx512dq"])
AMX = AVX512 | frozenset(["avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16"])
NEOVERSE = frozenset(["fp", "asimd", "sve"])

# Prints what this program finds, what torch says, and, by a convolution in oneDNN's verbose mode, what oneDNN says.
PROBE = """
import torch
from ddpm_inference.hardware import find_hardware
found = find_hardware("cpu")
print(found.aten, torch.backends.cpu.get_cpu_capability(), found.onednn, flush=True)
with torch.inference_mode():
    torch.nn.functional.conv2d(torch.randn(32, 8, 28, 28), torch.randn(8, 8, 3, 3))
"""
# What oneDNN calls its instruction sets in its verbose output.
ONEDNN_NAMES = {
    "SSE41": "SSE4.1",
    "AVX": "AVX",
    "AVX2": "AVX2",
    "AVX512_CORE": "AVX-512 with AVX512BW, AVX512VL, and AVX512DQ extensions",
    "AVX512_CORE_VNNI": "AVX-512 with Intel DL Boost",
}


@pytest.mark.parametrize(
    ("flags", "environment", "aten", "onednn"),
    [
        (AVX2, {}, "AVX2", "AVX2"),
        (AVX512, {}, "AVX512", "AVX512_CORE"),
        (AMX, {}, "AVX512", "AVX512_CORE_AMX"),
        (frozenset({"sse2", "sse4_1"}), {}, "DEFAULT", "SSE41"),
        (NEOVERSE, {}, "SVE", "SVE"),
        (frozenset(), {}, "DEFAULT", "NONE"),
        (AVX512, {"ATEN_CPU_CAPABILITY": "avx2"}, "AVX2", "AVX512_CORE"),
        (AVX512, {"ATEN_CPU_CAPABILITY": "AVX2"}, "AVX512", "AVX512_CORE"),
        (AVX512, {"ATEN_CPU_CAPABILITY": "default"}, "DEFAULT", "AVX512_CORE"),
        (AVX512, {"ATEN_CPU_CAPABILITY": "vsx"}, "AVX512", "AVX512_CORE"),
        (AVX512, {"ONEDNN_MAX_CPU_ISA": "AVX2"}, "AVX512", "AVX2"),
        (AVX512, {"DNNL_MAX_CPU_ISA": "avx2"}, "AVX512", "AVX2"),
        (AVX2, {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_AMX"}, "AVX2", "AVX2"),
        (AVX512, {"ONEDNN_MAX_CPU_ISA": "ALL"}, "AVX512", "AVX512_CORE"),
    ],
)
def test_flags_and_environment_decide_the_kernels(
    flags: frozenset[str], environment: dict[str, str], aten: str, onednn: str
) -> None:
    assert (aten_capability(flags, environment), onednn_isa(flags, environment)) == (aten, onednn)


def test_a_limit_of_mkl_is_recorded() -> None:
    assert mkl_limit({}) is None
    assert mkl_limit({"MKL_CBWR": "avx2"}) == "MKL_CBWR=AVX2"


@pytest.mark.parametrize(
    ("text", "vendor", "flag"),
    [
        ("processor\t: 0\nvendor_id\t: AuthenticAMD\nflags\t\t: fpu avx2\n\nprocessor\t: 1\n", "AuthenticAMD", "avx2"),
        ("processor : 0\nFeatures : fp asimd SVE\nCPU implementer : 0x41\nCPU part : 0xd40\n", "0x41 0xd40", "sve"),
    ],
)
def test_cpuinfo_of_x86_and_arm_is_read(tmp_path: Path, text: str, vendor: str, flag: str) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(text)
    cpu = find_cpu(file)
    assert cpu is not None
    assert cpu.vendor == vendor
    assert flag in cpu.flags


def test_a_machine_without_cpuinfo_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "find_cpu", lambda: find_cpu(tmp_path / "missing"))
    assert find_hardware("cpu") is None


def test_a_gpu_is_described_with_its_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also with the CPU's vendor, since the CPU folds the network; not with its kernels for the steps."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H200 " + "x" * 100)
    monkeypatch.setattr(torch.backends, "cudnn", SimpleNamespace(version=lambda: 91002))
    monkeypatch.setattr(hardware, "_cublas_version", lambda cuda: "13.1.0")
    monkeypatch.setenv("MKL_CBWR", "AVX2")
    found, cpu = find_hardware("cuda"), find_hardware("cpu")
    assert found is not None
    assert cpu is not None
    assert found.gpu is not None
    assert found.gpu.startswith("NVIDIA H200 xxx")
    assert len(found.gpu) == 80
    assert (found.compute_capability, found.cudnn, found.cublas) == ("9.0", "91002", "13.1.0")
    assert (found.cpu_vendor, found.mkl, found.aten) == (cpu.cpu_vendor, "MKL_CBWR=AVX2", None)


def test_a_gpu_that_torch_does_not_see_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert find_hardware("cuda") is None


@pytest.mark.slow
@pytest.mark.parametrize(
    "variable",
    [{}, {"ATEN_CPU_CAPABILITY": "avx2"}, {"ATEN_CPU_CAPABILITY": "default"}, {"ONEDNN_MAX_CPU_ISA": "AVX2"}],
)
def test_torch_and_onednn_agree(variable: dict[str, str]) -> None:
    environment = {**os.environ, **variable, "ONEDNN_VERBOSE": "all"}
    result = subprocess.run(
        [sys.executable, "-c", PROBE], env=environment, capture_output=True, text=True, check=True
    ).stdout
    aten, of_torch, onednn = result.splitlines()[0].split()
    assert aten == of_torch
    isa = next((line.partition("isa:")[2] for line in result.splitlines() if ",cpu,isa:" in line), None)
    if isa is not None and onednn in ONEDNN_NAMES:
        assert isa == f"Intel {ONEDNN_NAMES[onednn]}"
