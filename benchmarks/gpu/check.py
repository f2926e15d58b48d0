"""Checks and measures the GPU path: `make bench-gpu`, about eight minutes on one GPU.

Each section prints its result as JSON; all of them are written to `--out`/gpu.json. A section that no longer fits into
`--budget` is skipped. The exit code is 1 if a section fails, or a comparison that must hold does not.

`--smoke` runs every section that needs no GPU, on the CPU and at toy sizes, with the Triton kernels in the
interpreter. It finds errors in these scripts and in the kernels before time on a GPU is spent.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import math
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

HERE = Path(__file__).parent
SMOKE = "--smoke" in sys.argv
# Read by cuBLAS, Inductor and Triton when they are imported.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
os.environ.setdefault("TORCHINDUCTOR_DETERMINISTIC", "1")
if SMOKE:
    os.environ["TRITON_INTERPRET"] = "1"

import torch  # noqa: E402
from reference import check_noise  # noqa: E402
from torch import Tensor  # noqa: E402

from ddpm_inference.checkpoint import Checkpoint, fetch, load  # noqa: E402
from ddpm_inference.job import (  # noqa: E402
    Identity,
    ModelRequest,
    ModelSpec,
    Precision,
    SamplerName,
    SamplerSpec,
    Shard,
)
from ddpm_inference.models import build  # noqa: E402
from ddpm_inference.models.predictor import predictor  # noqa: E402
from ddpm_inference.models.unet import Unet  # noqa: E402
from ddpm_inference.sampling.noise import NoiseSource  # noqa: E402
from ddpm_inference.sampling.samplers import sample  # noqa: E402
from ddpm_inference.sampling.schedule import schedule, spaced  # noqa: E402
from ddpm_inference.shard_sampler import ShardSampler, make_deterministic  # noqa: E402

TRITON = importlib.util.find_spec("triton") is not None
DEVICE = "cpu" if SMOKE else "cuda"
MODEL = "builtin://mnist"
GUIDE = ModelSpec(name="Unet", downs=(8, 16, 32), time_emb_dim=4, img_size=28, time_embedding="step")
THREADS = 4
MIN_SECTION_SECONDS = 15
MIN_NETWORK_SECONDS = 75
COMPILE_BACKEND = "aot_eager" if SMOKE else "inductor"
"""aot_eager needs no C++ compiler; it still fails on a graph break."""

Result = dict[str, object]


class NeedsGpu(Exception):
    """A section cannot run on the CPU."""


@dataclass
class Run:
    """The state of a run of all sections.

    Attributes:
        results: of each section, by name.
        broken: comparisons that do not hold, and sections that raised an error.
    """

    budget: float
    out: Path
    started: float = field(default_factory=time.monotonic)
    results: dict[str, object] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)

    def seconds_left(self) -> float:
        return self.budget - (time.monotonic() - self.started)

    def require(self, holds: bool, comparison: str) -> bool:
        """Records a comparison that must hold."""
        if not holds:
            self.broken.append(comparison)
        return holds

    def section(self, run_section: Callable[[Run], Result]) -> None:
        name, began = run_section.__name__, time.monotonic()
        if self.seconds_left() < MIN_SECTION_SECONDS:
            self.results[name] = "skipped: out of time"
        else:
            try:
                self.results[name] = run_section(self)
            except NeedsGpu:
                self.results[name] = "skipped: needs a GPU"
            except Exception as error:  # noqa: BLE001 - the other sections must still run
                traceback.print_exc()
                self.results[name] = f"failed: {error}"
                self.broken.append(f"{name}: {error}")
        print(f"{name} ({time.monotonic() - began:.1f} s): {json.dumps(self.results[name])}", flush=True)
        self.save()

    def save(self) -> None:
        (self.out / "gpu.json").write_text(json.dumps(self.results, indent=1) + "\n")


def synchronize() -> None:
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def seconds_a_call(call: Callable[[], object], *, min_calls: int = 5, min_seconds: float = 0.25) -> float:
    """Times calls by the host's clock, from a synchronized start to a synchronized end. In a smoke run: one call."""
    warm_up, min_calls, min_seconds = (0, 1, 0.0) if SMOKE else (3, min_calls, min_seconds)
    for _ in range(warm_up):
        call()
    synchronize()
    start, calls = time.perf_counter(), 0
    while calls < min_calls or time.perf_counter() - start < min_seconds:
        call()
        calls += 1
        if calls % 20 == 0:
            synchronize()
    synchronize()
    return (time.perf_counter() - start) / calls


def use_tf32(enabled: bool) -> None:
    torch.backends.cudnn.allow_tf32 = enabled
    torch.backends.cuda.matmul.allow_tf32 = enabled


def sha256(samples: bytes) -> str:
    return hashlib.sha256(samples).hexdigest()[:16]


def ignore_progress(done: int, steps: int) -> None:
    pass


def create_sampler(
    device: str, batch: int, *, name: SamplerName = "ddpm", steps: int = 200, precision: Precision = "fp32"
) -> ShardSampler:
    """Creates a sampler of the shipped checkpoint."""
    checkpoint = shipped()
    identity = Identity.model_validate(
        {
            "model_sha256": checkpoint.sha256,
            "model": checkpoint.spec,
            "sampler": sampler_spec(name, steps),
            "seed": 3,
            "precision": precision,
            "batch_size": batch,
            "execution": "folded",
            "device": device,
            "torch": torch.__version__,
        }
    )
    return ShardSampler(checkpoint, identity, THREADS)


def shipped() -> Checkpoint:
    return load(fetch(MODEL), ModelRequest(uri=MODEL))


def sampler_spec(name: SamplerName, steps: int) -> SamplerSpec:
    return SamplerSpec(
        name=name,
        timesteps=1000,
        steps=steps,
        eta=0.0,
        schedule="linear",
        variance="large" if name == "ddpm" else None,
    )


def draw(sampler: ShardSampler, count: int) -> Tensor:
    return torch.from_numpy(sampler.sample(Shard(first=0, last=count - 1), ignore_progress))


def environment(run: Run) -> Result:
    versions: Result = {"torch": torch.__version__, "python": sys.version.split()[0]}
    if TRITON:
        import triton

        versions["triton"] = triton.__version__
    if DEVICE == "cuda":
        free, total = torch.cuda.mem_get_info()
        versions |= {
            "cudnn": torch.backends.cudnn.version(),
            "gpu": torch.cuda.get_device_name(),
            "capability": torch.cuda.get_device_capability(),
            "free_bytes": free,
            "total_bytes": total,
        }
    return versions


def peaks(run: Run) -> Result:
    """Measures matmul rates, copy bandwidth and launch costs."""
    size, result = (64 if SMOKE else 8192), cast(Result, {})
    for name, dtype in (("bf16", torch.bfloat16), ("tf32", torch.float32), ("fp32", torch.float32)):
        use_tf32(name == "tf32")
        a, b = (torch.randn(size, size, device=DEVICE).to(dtype) for _ in range(2))
        result[f"{name}_tflops"] = 2 * size**3 / seconds_a_call(lambda a=a, b=b: a @ b) / 1e12
    use_tf32(False)
    source = torch.empty(1 << (20 if SMOKE else 31), dtype=torch.uint8, device=DEVICE)
    target = torch.empty_like(source)
    result["copy_tb_per_second"] = 2 * source.numel() / seconds_a_call(lambda: target.copy_(source)) / 1e12
    small = torch.zeros(16, device=DEVICE)
    result["eager_launch_us"] = 1e6 * seconds_a_call(lambda: small.add_(1), min_calls=2000)
    if DEVICE == "cuda":
        graph = torch.cuda.CUDAGraph()
        small.add_(1)
        with torch.cuda.graph(graph):
            for _ in range(200):
                small.add_(1)
        result["graph_kernel_us"] = 1e6 * seconds_a_call(graph.replay) / 200
    return result


def noise(run: Run) -> Result:
    """Compares torch's noise with the reference, and the Triton kernels with torch; times both."""
    comparisons = check_noise(DEVICE)
    if TRITON:
        from kernel_check import check_kernels

        comparisons |= check_kernels(DEVICE, short=SMOKE)
    for comparison, holds in comparisons.items():
        run.require(holds, comparison)
    result: Result = dict(comparisons)
    if not TRITON:
        return result
    from noise_kernel import FusedStep

    sizes = (((1, 4, 4), 2),) if SMOKE else (((1, 28, 28), 512), ((3, 256, 256), 16))
    for shape, batch in sizes:
        indices = torch.arange(batch)
        source = NoiseSource(0, indices, shape, DEVICE)
        fused = FusedStep(0, indices, shape, [7], torch.zeros(1, 5), DEVICE)
        on_cpu, eager, kernel = NoiseSource(0, indices, shape)(7), source(7).cpu(), fused.noise().cpu()
        result[f"{shape} x {batch}"] = {
            "cpu_eager_max": float((eager - on_cpu).abs().max()),
            "cpu_eager_equal": float((eager == on_cpu).float().mean()),
            "eager_kernel_max": float((kernel - eager).abs().max()),
            "eager_kernel_equal": float((kernel == eager).float().mean()),
            "eager_us": 1e6 * seconds_a_call(lambda source=source: source(7)),
            "kernel_us": 1e6 * seconds_a_call(fused.noise),
        }
    return result


def compilation(run: Run) -> Result:
    """Compiles the kernels for an H200, which needs no GPU."""
    if not TRITON:
        return {"skipped": "triton is not installed"}
    compiled = subprocess.run(
        [sys.executable, HERE / "compile_offline.py", *(["--short"] if SMOKE else [])],
        env={name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    variants: list[dict[str, Any]] = [json.loads(line) for line in compiled.stdout.splitlines()]
    unfused = {variant["fused_multiply_adds"] for variant in variants if not variant["fp_fusion"]}
    run.require(len(unfused) == 1, "update_kernel has no fused multiply-adds but libdevice's")
    return {"variants": variants}


def samples(run: Run) -> Result:
    """Compares devices, repeats, short shards, and rows whose positions and neighbours change."""
    result: Result = {}
    batch = 8 if SMOKE else 64
    chains: Sequence[tuple[SamplerName, int]] = (
        (("ddpm", 3),) if SMOKE else (("ddpm", 200), ("ddim", 50), ("dpmpp", 20))
    )
    for name, steps in chains:
        sampler = create_sampler(DEVICE, batch, name=name, steps=steps)
        first, short = draw(sampler, batch), draw(sampler, 5)
        repeat = draw(create_sampler(DEVICE, batch, name=name, steps=steps), batch)
        difference = (draw(create_sampler("cpu", batch, name=name, steps=steps), batch) - first).abs()
        worst = difference.flatten(1).max(1).values
        result[name] = {
            "cpu_gpu_max": float(worst.max()),
            "rows_above_1_255": int((worst > 1 / 255).sum()),
            "repeat_equal": run.require(torch.equal(first, repeat), f"{name}: a repeated shard has the same bits"),
            "short_shard_equal": run.require(torch.equal(short, first[:5]), f"{name}: a short shard has the same bits"),
        }
    for precision in ("fp32", "tf32", "bf16"):
        result[f"rows {precision}"] = row_independence(batch, precision)
    use_tf32(False)
    return result


def row_independence(batch: int, precision: str) -> Result:
    """Whether the bits of a row survive a permutation of the batch, NaN in other rows, and repeats."""
    checkpoint = shipped()
    network = build(checkpoint.spec)
    network.load_state_dict(checkpoint.state_dict())
    make_deterministic(THREADS)
    use_tf32(precision == "tf32")
    dtype: Precision = "bf16" if precision == "bf16" else "fp32"
    eps_model = predictor(network, checkpoint.spec, [500], precision=dtype, device=DEVICE)
    x = torch.randn(batch, *checkpoint.spec.image_shape, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    order = torch.randperm(batch, generator=torch.Generator().manual_seed(1)).to(DEVICE)
    hostile = x.clone()
    hostile[1:] = torch.nan
    eps = eps_model(x, 500)
    return {
        "permuted_rows_equal": torch.equal(eps_model(x[order], 500), eps[order]),
        "beside_nan_equal": torch.equal(eps_model(hostile, 500)[0], eps[0]),
        "repeats_equal": all(torch.equal(eps_model(x, 500), eps) for _ in range(2 if SMOKE else 5)),
    }


def processes(run: Run) -> Result:
    """Draws the same shard in several processes that share the device: bits, and samples a second of all."""
    result: Result = {}
    steps, seconds, delay = (2, 0.2, 0.0) if SMOKE else (100, 4.0, 12.0)
    for count, batch in ((1, 4),) if SMOKE else ((1, 512), (4, 512), (2, 128)):
        start = time.time() + delay
        arguments = [str(each) for each in (start, seconds, batch, steps)]
        children = [
            subprocess.Popen(
                [sys.executable, __file__, *(["--smoke"] if SMOKE else []), "--child", *arguments],
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(count)
        ]
        expected = sha256(draw(create_sampler(DEVICE, batch, steps=steps), batch).numpy().tobytes())
        reports = [json.loads(child.communicate()[0].splitlines()[-1]) for child in children]
        label = f"{count} processes, batch {batch}"
        same = all(report["sha256"] == expected for report in reports)
        result[label] = {
            "samples_per_second": sum(report["rate"] for report in reports),
            "same_bits": run.require(same, f"{label}: the same bits as in one process"),
            "late_seconds": max(report["late"] for report in reports),
        }
    return result


def child(start: float, seconds: float, batch: int, steps: int) -> None:
    """Draws shards from `start` on; prints the hash of one, and the rate, as JSON."""
    sampler = create_sampler(DEVICE, batch, steps=steps)
    digest = sha256(draw(sampler, batch).numpy().tobytes())
    late = max(0.0, time.time() - start)
    time.sleep(max(0.0, start - time.time()))
    began, drawn = time.time(), 0
    while time.time() - began < seconds:
        draw(sampler, batch)
        drawn += batch
    print(json.dumps({"sha256": digest, "rate": drawn / (time.time() - began), "late": late}))


def memory_pressure(run: Run) -> Result:
    """Reports whether a convolution changes its bits when its workspace does not fit, and the error without memory."""
    if DEVICE == "cpu":
        raise NeedsGpu
    result: Result = {}
    for extra_mib in (0, 300, 40, -40):
        convolution = subprocess.run(
            [sys.executable, HERE / "convolution_under_pressure.py", str(extra_mib)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        result[f"{extra_mib} MiB besides x and y"] = convolution.stdout.strip()
    return result


def our_networks(run: Run) -> Result:
    """Times our networks: as they are, as one CUDA graph, and compiled into one graph."""
    if not TRITON:
        return {"skipped": "triton is not installed"}
    result: Result = {}
    checkpoint = shipped()
    steps = 2 if SMOKE else 20
    for name, spec in (("guide", GUIDE),) if SMOKE else (("guide", GUIDE), ("shipped", checkpoint.spec)):
        network = build(spec).eval()
        if name == "shipped":
            network.load_state_dict(checkpoint.state_dict())
        variants = (("fp32", 512), ("bf16", 512), ("tf32", 512), ("fp32", 128), ("bf16", 4096))
        for precision, batch in (("fp32", 1),) if SMOKE else variants:
            if run.seconds_left() < MIN_NETWORK_SECONDS:
                return result
            compiled = SMOKE or (name, precision, batch) in (("guide", "fp32", 512), ("shipped", "bf16", 4096))
            row = time_network(run, cast(Unet, network), spec, precision, batch, steps, compiled=compiled)
            result[f"{name} {precision} {batch}"] = row
    use_tf32(False)
    return result


@torch.inference_mode()
def time_network(
    run: Run, network: Unet, spec: ModelSpec, precision: str, batch: int, steps: int, *, compiled: bool
) -> Result:
    from stepper import GraphStepper, folded_network

    make_deterministic(THREADS)
    use_tf32(precision == "tf32")
    named: Precision = "bf16" if precision == "bf16" else "fp32"
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    eps_model = predictor(network, spec, spaced(1000, steps), precision=named, device=DEVICE)
    source, made = NoiseSource(0, torch.arange(batch), spec.image_shape, DEVICE), schedule("linear", 1000)

    def as_is() -> Tensor:
        return sample(eps_model, source.initial(), made, sampler_spec("ddpm", steps), noise=source)

    def stepper(*, compile_with: str | None = None) -> GraphStepper:
        graph_network = folded_network(network, dtype, DEVICE, steps=steps, compile_with=compile_with)
        return GraphStepper(graph_network, spec.image_shape, batch, dtype, DEVICE, steps=steps)

    expected = as_is()
    row: Result = {"as_is_ms": 1e3 / steps * seconds_a_call(as_is, min_calls=2)}
    graph = stepper()
    for _ in range(steps):
        graph()
    row["graph_equals_as_is"] = float((graph.x == expected).float().mean())
    row["graph_max_difference"] = difference = float((graph.x - expected).abs().max())
    if precision == "fp32":
        run.require(difference < 1e-3, f"the graph of {spec.downs} draws the sampler's samples")
    graph.reset()
    row["graph_ms"] = 1e3 * seconds_a_call(graph.step_or_rewind)
    if compiled:
        began = time.monotonic()
        graph = stepper(compile_with=COMPILE_BACKEND)
        row["compile_seconds"] = time.monotonic() - began
        for _ in range(steps):
            graph()
        row["compiled_max_difference"] = float((graph.x - expected).abs().max())
        graph.reset()
        row["compiled_graph_ms"] = 1e3 * seconds_a_call(graph.step_or_rewind)
    return row


def diffusers_networks(run: Run) -> Result:
    """Times networks of diffusers: in its own loop, and in our step with one graph, eager and compiled."""
    if not TRITON:
        return {"skipped": "triton is not installed"}
    from diffusers_networks import PLAN, SMOKE_PLAN, time_diffusers

    result: Result = {}
    for variant in SMOKE_PLAN if SMOKE else PLAN:
        if run.seconds_left() < MIN_NETWORK_SECONDS:
            break
        use_tf32(variant.precision == "tf32")
        result[str(variant)] = time_diffusers(variant, DEVICE, seconds_a_call, COMPILE_BACKEND)
        run.results["diffusers_networks"] = result
        run.save()
    use_tf32(False)
    return result


SECTIONS = (
    environment,
    peaks,
    noise,
    compilation,
    samples,
    processes,
    memory_pressure,
    our_networks,
    diffusers_networks,
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", type=float, default=380, help="seconds for all sections")
    parser.add_argument("--out", type=Path, default=Path("build"), help="folder of the results")
    parser.add_argument("--only", nargs="+", choices=[each.__name__ for each in SECTIONS], help="sections to run")
    parser.add_argument("--smoke", action="store_true", help="on the CPU, at toy sizes")
    parser.add_argument("--child", nargs=4, type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        start, seconds, batch, steps = options.child
        child(start, seconds, int(batch), int(steps))
        return 0
    if DEVICE == "cuda" and not torch.cuda.is_available():
        print("no GPU: use --smoke", file=sys.stderr)
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    run = Run(math.inf if SMOKE else options.budget, options.out)
    for section in SECTIONS:
        if not options.only or section.__name__ in options.only:
            run.section(section)
    for broken in run.broken:
        print(f"BROKEN: {broken}")
    covered = [name for name, result in run.results.items() if not isinstance(result, str) and "skipped" not in result]
    kernels = "Triton kernels included" if TRITON else "without the Triton kernels: triton is not installed"
    print(f"{'smoke run' if SMOKE else 'run'} on {DEVICE}, {kernels}; covered: {', '.join(covered)}")
    print("FAILED" if run.broken else "OK")
    return 1 if run.broken else 0


if __name__ == "__main__":
    sys.exit(main())
