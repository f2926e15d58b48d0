"""The flags of the command, and the Job they are turned into; or the Job of the environment, which replaces them."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from functools import reduce
from typing import Any, NoReturn, TypeVar, get_args

from pydantic import ValidationError

from ddpm_inference import __version__
from ddpm_inference.diffusion_spec import GuideSchedule, Prediction, ScheduleName, Spacing
from ddpm_inference.errors import InvalidSpec
from ddpm_inference.job import (
    SAMPLER_OF_FIELD,
    Job,
    ModelName,
    Precision,
    SamplerName,
    StrictModel,
    TimeEmbedding,
    Variance,
    validation_message,
)
from ddpm_inference.progress_server.settings import MIN_TOKEN_LENGTH, PORT_VARIABLE, TOKEN_VARIABLE
from ddpm_inference.text import did_you_mean

JOB_VARIABLE = "DDPM_JOB"
OUT_DIR = "./out"
COMMANDS = ("convert", "inspect", "verify")

Document = TypeVar("Document", bound=StrictModel)

EPILOG = f"""\
examples:
  ddpm-sample --model_path builtin://mnist --sampler ddim           100 digits into ./out
  ddpm-sample --model_path net.safetensors --n_samples 5000         repeat it to resume after an interruption
  ddpm-sample --model_path Unet.pt --model_name Unet --downs 8 16 32 --time_emb_dim 4 --img_size 28
  ddpm-sample --model_path net.safetensors --ray_address ray://head:10001 --output_uri s3://bucket/digits
  ddpm-sample --model_path hf://org/name                            a DDPM of the Hugging Face hub
  ddpm-sample inspect ./my-pipeline                                 what a checkpoint holds, and how it is sampled
  ddpm-sample convert Unet.pt net.safetensors                       a .pt state dict, safe and with its metadata
  ddpm-sample verify ./out                                          whether the stored samples are still whole

Flags can also be written with dashes (--n-samples). The environment variable {JOB_VARIABLE} may hold the whole
job as a JSON document; flags must not contradict it. If {PORT_VARIABLE} is set, the run serves GET /progress
and GET /grid.png on that port; requests must send "Authorization: Bearer" with the token in
{TOKEN_VARIABLE}, which has at least {MIN_TOKEN_LENGTH} characters.

exit codes: 0 complete, 2 bad usage or input, 3 resources unavailable, 4 failed; the samples stored so far
are kept (run again to resume), 130 interrupted"""


class Parser(argparse.ArgumentParser):
    """An argument parser whose flags set fields of a document, and whose errors are InvalidSpec.

    Attributes:
        flag_of: dotted path of a field -> the flag that sets it; the one that was given if several do.
    """

    def __init__(self, prog: str, usage: str, description: str, epilog: str | None = None) -> None:
        super().__init__(
            prog,
            usage=usage,
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self.flag_of: dict[str, str] = {}

    def error(self, message: str) -> NoReturn:
        raise InvalidSpec(message, hint=f"{self.prog} --help lists every flag")

    def field(self, group: argparse._ArgumentGroup, flag: str, path: str, help: str, **options: Any) -> None:  # noqa: ANN401
        """Adds a flag for a field. The field is absent from the parsed arguments unless the flag is given."""
        self.flag_of.setdefault(path, flag)
        if "choices" not in options and "action" not in options:
            options.setdefault("metavar", {int: "N", float: "X"}.get(options.get("type", str), "URI"))
        group.add_argument(flag, dest=path, default=argparse.SUPPRESS, help=help, **options)

    def parse(self, arguments: Iterable[str]) -> argparse.Namespace:
        """Parses the arguments; accepts ``--a-flag`` for ``--a_flag``.

        Raises:
            InvalidSpec: if an argument is unknown or invalid; it suggests the closest known one.
        """
        words = [_with_underscores(argument) for argument in arguments]
        parsed, unknown = self.parse_known_args(words)
        if unknown:
            flags = [word.partition("=")[0] for word in unknown if word.startswith("-")]
            known = [*self._option_string_actions, *COMMANDS]
            self.error(f"unknown arguments: {' '.join(unknown)}{did_you_mean((flags or unknown)[0], known)}")
        for word in words:
            flag = word.partition("=")[0]
            action = self._option_string_actions.get(flag)
            if action is not None and action.dest in self.flag_of:
                self.flag_of[action.dest] = flag
        return parsed

    def _check_value(self, action: argparse.Action, value: object) -> None:
        if action.choices is not None and value not in action.choices:
            known = [str(choice) for choice in action.choices]
            raise argparse.ArgumentError(
                action, f"{value} is not one of {', '.join(known)}{did_you_mean(str(value), known)}"
            )

    def fields_given(self, arguments: argparse.Namespace) -> dict[str, object]:
        """Returns dotted path -> value of the fields that were given."""
        return {path: value for path, value in vars(arguments).items() if path in self.flag_of}

    def validated(self, model: type[Document], fields: Mapping[str, object], parent: str = "") -> Document:
        """Returns the document of the fields.

        Args:
            parent: path of the document in the fields of this parser; "" for the whole.

        Raises:
            InvalidSpec: if it is invalid; the messages name flags instead of fields.
        """
        try:
            return model.model_validate(fields)
        except ValidationError as error:
            messages = []
            for item in error.errors():
                path = ".".join(
                    [*([parent] if parent else []), *(part for part in item["loc"] if isinstance(part, str))]
                )
                messages.append(validation_message(item, self.flag_of.get(path, path)))
            raise InvalidSpec("; ".join(messages), hint=f"{self.prog} --help lists every flag") from error


def sample_parser() -> Parser:
    """Returns the parser of the main command."""
    parser = Parser(
        "ddpm-sample",
        "%(prog)s --model_path URI [flags]",
        "Draws samples from a trained DDPM, in parallel on Ray.",
        EPILOG,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")

    group = parser.add_argument_group("what to sample")
    parser.field(
        group,
        "--model_path",
        "model.uri",
        "checkpoint: a file or the folder of a pipeline: a path, builtin://mnist, s3://…, https://… or hf://org/name",
    )
    _add_sha256(parser, group)
    parser.field(
        group,
        "--n_samples",
        "n_samples",
        "number of samples (default 100); a later run may ask for more",
        type=int,
        metavar="N",
    )
    parser.field(group, "--seed", "seed", "seed of the noise (default 0)", type=int)
    _add_architecture(parser)

    group = parser.add_argument_group("sampling")
    parser.field(
        group,
        "--sampler",
        "sampler.name",
        "sampler (default: of the checkpoint's pipeline, else ddpm)",
        choices=get_args(SamplerName),
    )
    parser.field(
        group,
        "--steps",
        "sampler.steps",
        "steps of a sample's chain (default: ddpm all timesteps, ddim 50, dpmpp 20, heun 20, unipc 20)",
        type=int,
    )
    parser.field(group, "--eta", "sampler.eta", "ddim only: 0 (deterministic, default) to 1", type=float)
    parser.field(
        group,
        "--timesteps",
        "sampler.timesteps",
        "timesteps T of the training (default: the checkpoint's, else 1000)",
        type=int,
    )
    parser.field(
        group,
        "--schedule",
        "sampler.schedule",
        "noise schedule of the training (default: the checkpoint's, else linear)",
        choices=get_args(ScheduleName),
    )
    parser.field(
        group,
        "--variance",
        "sampler.variance",
        "ddpm only: large is beta_t, small the posterior's, learned_range the network's own (default: the "
        "checkpoint's, else large)",
        choices=get_args(Variance),
    )
    _add_diffusion(parser)

    group = parser.add_argument_group("execution")
    parser.field(group, "--precision", "precision", "number format (default fp32)", choices=get_args(Precision))
    parser.field(
        group, "--batch_size", "batch_size", "samples per network call (default: by model and device)", type=int
    )
    parser.field(group, "--compile", "compile", "use torch.compile: worth it for long runs", action="store_true")

    group = parser.add_argument_group("output")
    exclusive = group.add_mutually_exclusive_group()
    parser.field(exclusive, "--out_dir", "output.uri", f"alias of --output_uri (default {OUT_DIR})")
    parser.field(exclusive, "--output_uri", "output.uri", "a folder or s3://bucket/prefix")
    parser.field(group, "--overwrite", "output.overwrite", "remove the run that is stored there", action="store_true")

    group = parser.add_argument_group("resources")
    group.add_argument(
        "--ray_address",
        default="auto",
        metavar="None|auto|ray://HOST:PORT",
        help="None: a local Ray; auto (default): a Ray running on this machine, else one behind a port-forward, else a "
        "local Ray",
    )
    parser.field(
        group, "--device", "device", "auto (default): cuda if the Ray cluster has GPUs", choices=["auto", "cuda", "cpu"]
    )
    for flag, text, kind in (
        ("--num_gpus_per_task", "GPUs of a worker on cuda (default 0.25: four workers share a GPU)", float),
        (
            "--num_cpus_per_task",
            "CPUs of a worker, and its threads (default 1); a resumed run keeps its number of threads",
            float,
        ),
        ("--workers", "maximum number of workers (default: as many as fit)", int),
        ("--startup_timeout", "seconds to wait for the first worker (default 60)", float),
        ("--shard_timeout", "seconds for a shard on one worker (default: ten times what others take)", float),
    ):
        parser.field(group, flag, f"resources.{flag.removeprefix('--')}", text, type=kind)
    parser.field(
        group,
        "--allow_mixed_hardware",
        "resources.allow_mixed_hardware",
        "continue a run on other hardware: other bits; the manifest says which shards are which",
        action="store_true",
    )

    group = parser.add_argument_group("reporting")
    group.add_argument("--json", action="store_true", help="print JSON lines on stdout")
    group.add_argument("--quiet", action="store_true", help="print errors only")
    group.add_argument(
        "--dry_run", action="store_true", help="print what the run would do, without Ray and without writing anything"
    )
    return parser


def convert_parser() -> Parser:
    """Returns the parser of ``ddpm-sample convert``."""
    parser = Parser(
        "ddpm-sample convert",
        "%(prog)s SOURCE TARGET [flags]",
        "Rewrites a checkpoint as safetensors with its metadata, or as the folder of a diffusers pipeline.",
    )
    parser.add_argument("source", help="a .pt state dict, a .safetensors file, or a pipeline, as --model_path")
    parser.add_argument("target", help="the .safetensors file to write, or a folder for a pipeline")
    parser.add_argument("--overwrite", action="store_true", help="overwrite the target")
    _add_sha256(parser, parser.add_argument_group("source"))
    _add_architecture(parser)
    group = parser.add_argument_group(
        "training", "Only needed if the checkpoint has no metadata; --schedule and --timesteps belong together."
    )
    parser.field(group, "--schedule", "trained.name", "noise schedule", choices=get_args(GuideSchedule))
    parser.field(group, "--timesteps", "trained.timesteps", "number of timesteps T", type=int)
    parser.field(group, "--variance", "trained.variance", "ddpm only", choices=get_args(Variance))
    return parser


def inspect_parser() -> Parser:
    """Returns the parser of ``ddpm-sample inspect``."""
    parser = Parser(
        "ddpm-sample inspect",
        "%(prog)s PATH [flags]",
        "Says what a checkpoint holds: its network, its training, the samplers, and what would be refused and why.",
        "exit codes: 0 it can be sampled, 2 bad usage, or it is refused",
    )
    parser.add_argument("path", metavar="PATH", help="as --model_path of ddpm-sample")
    parser.add_argument("--json", action="store_true", help="print one JSON line on stdout")
    _add_sha256(parser, parser.add_argument_group("source"))
    _add_architecture(parser)
    return parser


def verify_parser() -> Parser:
    """Returns the parser of ``ddpm-sample verify``."""
    parser = Parser(
        "ddpm-sample verify",
        "%(prog)s PLACE [flags]",
        "Hashes every file of a stored run and compares it with the manifest. Writes nothing without --repair.",
        "exit codes: 0 whole, 2 bad usage or nothing stored there, 4 unfinished, damaged or not repaired",
    )
    parser.add_argument("place", metavar="PLACE", help="a folder, such as a mounted claim, or s3://bucket/prefix")
    parser.add_argument("--json", action="store_true", help="print JSON lines on stdout")
    group = parser.add_argument_group("repair")
    group.add_argument(
        "--repair", action="store_true", help="draw damaged shards and write damaged files again, with the same samples"
    )
    parser.field(
        group,
        "--model_path",
        "model.uri",
        "the run's checkpoint; needed if shards are damaged, unless it is a shipped one",
    )
    group.add_argument("--ray_address", default="auto", metavar="None|auto|ray://HOST:PORT", help="as of ddpm-sample")
    for flag, kind in (
        ("--num_gpus_per_task", float),
        ("--num_cpus_per_task", float),
        ("--workers", int),
        ("--startup_timeout", float),
    ):
        parser.field(group, flag, f"resources.{flag.removeprefix('--')}", "as of ddpm-sample", type=kind)
    parser.field(
        group,
        "--allow_mixed_hardware",
        "resources.allow_mixed_hardware",
        "draw again on other hardware than the run's, although the bits will differ",
        action="store_true",
    )
    return parser


def job_from(parser: Parser, arguments: argparse.Namespace, environment: Mapping[str, str]) -> Job:
    """Returns the Job of the flags, or the Job in the environment.

    Raises:
        InvalidSpec: if the Job is invalid, or the flags contradict the environment.
    """
    given = parser.fields_given(arguments)
    text = environment.get(JOB_VARIABLE)
    if text is None:
        if "model.uri" not in given:
            parser.error("--model_path is missing")
        job = parser.validated(Job, nested({"output.uri": OUT_DIR, **given}))
        _refuse_unused(parser, given, job)
        return job
    job = Job.parse(text, f"the job in {JOB_VARIABLE}")
    merged = parser.validated(Job, nested({**_flat(job.model_dump(exclude_unset=True)), **given}))
    for path in given:
        if _at(merged, path) != _at(job, path):
            raise InvalidSpec(
                f"{parser.flag_of[path]} {_at(merged, path)} contradicts the job in {JOB_VARIABLE}, which says "
                f"{_at(job, path)}",
                hint=f"omit the flag, or unset {JOB_VARIABLE}",
            )
    _refuse_unused(parser, given, job)
    return job


def nested(fields: Mapping[str, object]) -> dict[str, Any]:
    """Turns dotted paths into nested objects: ``{"a.b": 1}`` to ``{"a": {"b": 1}}``."""
    document: dict[str, Any] = {}
    for path, value in fields.items():
        *parents, name = path.split(".")
        reduce(lambda inner, key: inner.setdefault(key, {}), parents, document)[name] = value
    return document


def _add_architecture(parser: Parser) -> None:
    group = parser.add_argument_group(
        "architecture", "Only needed if the checkpoint has no metadata; must not contradict it."
    )
    parser.field(group, "--model_name", "model.name", "the network", choices=get_args(ModelName))
    parser.field(group, "--downs", "model.downs", "channels of each level, outermost first", type=int, nargs="+")
    parser.field(group, "--time_emb_dim", "model.time_emb_dim", "width of the time embedding", type=int)
    parser.field(group, "--img_size", "model.img_size", "height and width in pixels", type=int)
    parser.field(
        group,
        "--time_embedding",
        "model.time_embedding",
        "step: of the timestep; row: of the batch row, as in the guide's code",
        choices=get_args(TimeEmbedding),
    )
    parser.field(
        group,
        "--attention_norm",
        "model.attention_norm",
        "whether a Unet applies the BatchNorm of its attention (default: as its statistics say)",
        choices=["yes", "no"],
    )


def _add_diffusion(parser: Parser) -> None:
    """Adds the settings of diffusers' schedulers, which a pipeline's scheduler_config.json holds."""
    group = parser.add_argument_group(
        "training and settings of a diffusers scheduler",
        "By default what scheduler_config.json says. What it says of the training must not be contradicted.",
    )
    yes_no = ["yes", "no"]
    for flag, text, options in (
        ("--prediction_type", "what the network predicts (default epsilon)", {"choices": get_args(Prediction)}),
        ("--beta_start", "first beta of linear, scaled_linear and sigmoid_betas", {"type": float}),
        ("--beta_end", "last beta of these", {"type": float}),
        ("--rescale_betas_zero_snr", "rescale the betas so that x_T is pure noise", {"choices": yes_no}),
        ("--clip_sample", "clamp the predicted x_0", {"choices": yes_no}),
        ("--clip_sample_range", "to ± this (default 1)", {"type": float}),
        ("--thresholding", "dynamic thresholding instead of the clamp", {"choices": yes_no}),
        ("--dynamic_thresholding_ratio", "its quantile (default 0.995)", {"type": float}),
        ("--sample_max_value", "its largest threshold (default 1)", {"type": float}),
        ("--timestep_spacing", "which timesteps a shorter chain visits", {"choices": get_args(Spacing)}),
        ("--steps_offset", "added to the timesteps of leading", {"type": int}),
        ("--set_alpha_to_one", "ddim only: whether the last step removes all noise", {"choices": yes_no}),
    ):
        parser.field(group, flag, f"sampler.{flag.removeprefix('--')}", text, **options)


def _add_sha256(parser: Parser, group: argparse._ArgumentGroup) -> None:
    parser.field(
        group,
        "--sha256",
        "model.sha256",
        "the sha256 that the checkpoint must have, as printed by sha256sum; any other file is rejected",
        type=str.lower,
        metavar="HEX",
    )


def _with_underscores(argument: str) -> str:
    flag, equals, value = argument.partition("=")
    return f"--{flag[2:].replace('-', '_')}{equals}{value}" if flag.startswith("--") else argument


def _refuse_unused(parser: Parser, given: Mapping[str, object], job: Job) -> None:
    """Refuses flags that the job's sampler does not use."""
    for field, sampler in SAMPLER_OF_FIELD.items():
        if f"sampler.{field}" in given and job.sampler.name != sampler:
            flag = parser.flag_of[f"sampler.{field}"]
            if job.sampler.name is None:
                # The default sampler is that of the checkpoint, which is not read yet; mostly it is ddpm.
                if sampler == "ddpm":
                    continue
                raise InvalidSpec(f"{flag} has no effect without --sampler {sampler}", hint=f"give --sampler {sampler}")
            raise InvalidSpec(
                f"{flag} has no effect with the sampler {job.sampler.name}: it is of {sampler}",
                hint=f"omit {flag}, or give --sampler {sampler}",
            )


def _flat(document: Mapping[str, Any], parent: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for name, value in document.items():
        path = f"{parent}{name}"
        flat |= _flat(value, f"{path}.") if isinstance(value, dict) else {path: value}
    return flat


def _at(job: Job, path: str) -> object:
    return reduce(getattr, path.split("."), job)
