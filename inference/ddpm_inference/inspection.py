"""``ddpm-sample inspect``: says what a checkpoint holds, how it would be sampled, and what would be refused and why."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import get_args

from pydantic import JsonValue

from ddpm_inference.checkpoint import Checkpoint, load_from
from ddpm_inference.checkpoint.source import redacted
from ddpm_inference.diffusion_spec import SamplerName
from ddpm_inference.errors import DdpmError, InvalidSpec, ModelRejected
from ddpm_inference.job import Device, ModelRequest, SamplerRequest, SamplerSpec, resolve_sampler
from ddpm_inference.models.families import family_of
from ddpm_inference.plan import batch_size_for
from ddpm_inference.text import count

DEVICES: tuple[Device, ...] = ("cpu", "cuda")


@dataclass(frozen=True)
class Inspection:
    """What `inspect` found.

    Attributes:
        document: for programs.
        refusal: why the checkpoint is not drawn; None if it is.
    """

    document: dict[str, JsonValue]
    refusal: DdpmError | None = None
    lines: list[tuple[str, str]] = field(default_factory=list)


def inspect(request: ModelRequest) -> Inspection:
    """Inspects the checkpoint at `request.uri`. It is read whole, and verified as for a run.

    Raises:
        ModelNotFound: if it cannot be read.
        InvalidSpec: if `request` contradicts it.
    """
    uri = redacted(request.uri) if request.uri.startswith("https://") else request.uri
    try:
        checkpoint = load_from(request)
    except ModelRejected as error:
        refused = {"message": error.message, "hint": error.hint}
        lines = [("model", uri), ("refused", error.message)]
        if error.hint:
            lines.append(("hint", error.hint))
        return Inspection({"model": uri, "refused": {key: value for key, value in refused.items()}}, error, lines)
    return _describe(uri, checkpoint)


def _describe(uri: str, checkpoint: Checkpoint) -> Inspection:
    spec, source = checkpoint.spec, checkpoint.source
    family = family_of(spec)
    parameters = sum(value.size for value in checkpoint.weights.values())
    weight_bytes = sum(value.nbytes for value in checkpoint.weights.values())
    cost = family.cost(spec)
    batches = {device: batch_size_for(spec, device) for device in DEVICES}
    memory = {device: weight_bytes + size * cost.activation_bytes for device, size in batches.items()}
    samplers = {name: _sampler(name, checkpoint) for name in get_args(SamplerName)}
    default = _sampler(None, checkpoint)
    notes = [*checkpoint.notes, *(checkpoint.diffusion.notes if checkpoint.diffusion else ())]
    document: dict[str, JsonValue] = {
        "model": uri,
        "sha256": checkpoint.sha256,
        "revision": source.revision if source else None,
        "files": [file.model_dump() for file in source.files] if source else [],
        "family": spec.name,
        "network": spec.model_dump(mode="json"),
        "imageShape": list(spec.image_shape),
        "parameters": parameters,
        "classes": spec.num_classes,
        "learnedVariance": spec.learned_variance,
        "trained": checkpoint.trained.model_dump(mode="json") if checkpoint.trained else None,
        "diffusion": checkpoint.diffusion.model_dump(mode="json") if checkpoint.diffusion else None,
        "sampler": default.name if isinstance(default, SamplerSpec) else None,
        "samplers": {
            name: {"steps": found.steps} if isinstance(found, SamplerSpec) else {"refused": found.message}
            for name, found in samplers.items()
        },
        "batchSize": dict(batches),
        "flopsPerEvaluation": cost.flops,
        "memoryBytes": dict(memory),
        "notes": list(notes),
    }
    channels, height, width = spec.image_shape
    lines = [
        ("model", f"{uri}, sha256 {checkpoint.sha256}"),
        ("family", family.describe(spec)),
        ("images", f"{height} x {width}, {count(channels, 'channel')}"),
        ("weights", f"{parameters:,} parameters, {_bytes(weight_bytes)} in fp32"),
        ("classes", str(spec.num_classes) if spec.num_classes else "none"),
        ("training", _training(checkpoint)),
        ("sampler", _words(default)),
        *((f"  {name}", _words(found)) for name, found in samplers.items()),
        *(
            (f"on {device}", f"batches of {batches[device]}, about {_bytes(memory[device])} a worker")
            for device in DEVICES
        ),
    ]
    if source is not None:
        if source.revision:
            lines.insert(1, ("commit", source.revision))
        lines += [("file", f"{file.name}, {file.bytes:,} bytes, sha256 {file.sha256}") for file in source.files]
    lines += [("note", note) for note in notes]
    return Inspection(document, None, lines)


def _sampler(name: SamplerName | None, checkpoint: Checkpoint) -> SamplerSpec | DdpmError:
    """Returns how a sampler would draw the checkpoint; None for the one that is used without flags."""
    try:
        return resolve_sampler(
            SamplerRequest(name=name),
            checkpoint.trained,
            checkpoint.diffusion,
            learned_variance=checkpoint.spec.learned_variance,
        )
    except (InvalidSpec, ModelRejected) as error:
        return error


def _words(found: SamplerSpec | DdpmError) -> str:
    if isinstance(found, DdpmError):
        return f"refused: {found.message}" + (f" ({found.hint})" if found.hint else "")
    extra = f", variance {found.variance}" if found.variance else ""
    return f"{found.name}, {found.steps} of {count(found.timesteps, 'timestep')}{extra}"


def _training(checkpoint: Checkpoint) -> str:
    diffusion, trained = checkpoint.diffusion, checkpoint.trained
    if diffusion is not None:
        betas = "" if diffusion.beta_start is None else f" from {diffusion.beta_start:g} to {diffusion.beta_end:g}"
        return f"schedule {diffusion.schedule}{betas}, {diffusion.timesteps} timesteps, predicts {diffusion.prediction}"
    if trained is not None:
        return f"schedule {trained.name}, {trained.timesteps} timesteps"
    return "unknown"


def _bytes(number: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if number < 1000 or unit == "GB":
            return f"{number:.3g} {unit}" if unit != "bytes" else f"{number:.0f} {unit}"
        number /= 1000
    raise AssertionError
