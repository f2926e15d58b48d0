"""How a network was trained and is to be sampled, as documents: what `sampling` needs besides the network itself.

`TrainedDiffusion` is what a pipeline's files say (``scheduler_config.json``, ``model_index.json``), read by
`sampling.scheduler_config`. `Diffusion` is what one sampler uses of it, with every default filled in; it is part of the
identity. Field names and values are those of diffusers' schedulers.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Final, Literal, Self

from pydantic import Field, model_validator

from ddpm_inference.documents import CompactModel, StrictModel

GuideSchedule = Literal["linear", "cosine", "cosine_origin", "sigmoid"]
ScheduleName = Literal[
    "linear",
    "cosine",
    "cosine_origin",
    "sigmoid",
    "scaled_linear",
    "squaredcos_cap_v2",
    "sigmoid_betas",
    "laplace",
    "exp",
]
"""The first four are the guide's; `sigmoid_betas` is what diffusers calls sigmoid, where the betas are that curve, not
alphas_cumprod."""
CurveName = ScheduleName | Literal["trained"]
"""A schedule by its formula, or `trained`: a list of betas."""
SamplerName = Literal["ddpm", "ddim", "dpmpp", "heun", "unipc"]
Variance = Literal["large", "small", "learned_range"]
Prediction = Literal["epsilon", "v_prediction", "sample"]
Spacing = Literal["leading", "trailing", "linspace"]
SolverType = Literal["midpoint", "heun", "bh1", "bh2"]
FinalSigma = Literal["zero", "sigma_min"]

MAX_TIMESTEPS: Final = 100_000
Timesteps = Annotated[int, Field(ge=1, le=MAX_TIMESTEPS)]
Beta = Annotated[float, Field(ge=0, lt=1)]
TrainedBeta = Annotated[float, Field(ge=0, le=1)]
TrainedBetas = Annotated[tuple[TrainedBeta, ...], Field(min_length=1, max_length=MAX_TIMESTEPS)]
ClipRange = Annotated[float, Field(gt=0, le=1e6)]
Ratio = Annotated[float, Field(gt=0, le=1)]
MaxValue = Annotated[float, Field(ge=1, le=1e6)]
StepsOffset = Annotated[int, Field(ge=0, le=1000)]

SAMPLER_OF_SCHEDULER: Final[dict[str, SamplerName]] = {
    "DDPMScheduler": "ddpm",
    "DDIMScheduler": "ddim",
    "DPMSolverMultistepScheduler": "dpmpp",
    "HeunDiscreteScheduler": "heun",
    "UniPCMultistepScheduler": "unipc",
}
"""The sampler that computes what a scheduler class of diffusers does."""
SCHEDULER_OF_SAMPLER: Final[dict[SamplerName, str]] = {name: key for key, name in SAMPLER_OF_SCHEDULER.items()}


class Thresholding(StrictModel):
    """Dynamic thresholding: x_0 is clamped to ±s and divided by s, where s is the `ratio` quantile of a sample's |x_0|,
    between 1 and `max_value` (arXiv 2205.11487, section 2.3)."""

    ratio: Ratio
    max_value: MaxValue


class Solver(CompactModel):
    """The settings of the multistep samplers, ``dpmpp`` and ``unipc``.

    Attributes:
        order: of the steps that have enough earlier ones.
        type: how a second-order step extrapolates.
        lower_order_final: whether the last steps are of lower order, see each sampler.
        euler_at_final: whether the last step is of first order, for ``dpmpp``.
        final_sigma: the noise level after the last step: none, or that of timestep 0.
        lambda_min_clipped: the chain begins where λ = ln(α/σ) exceeds this; None: at the last timestep.
        disable_corrector: the steps whose result ``unipc`` does not correct.
    """

    omitted_at_default: ClassVar[frozenset[str]] = frozenset(
        {"lower_order_final", "euler_at_final", "final_sigma", "lambda_min_clipped", "disable_corrector"}
    )

    order: Literal[1, 2] = 2
    type: SolverType
    lower_order_final: bool = True
    euler_at_final: bool = False
    final_sigma: FinalSigma = "zero"
    lambda_min_clipped: float | None = None
    disable_corrector: tuple[Annotated[int, Field(ge=0, le=MAX_TIMESTEPS)], ...] = ()


class Diffusion(CompactModel):
    """Everything of a scheduler's configuration that changes a step of one sampler, complete.

    Fields that the sampler does not use have a fixed value, so that they cannot change the fingerprint.

    Attributes:
        prediction: what the network predicts: the noise, v = √ᾱ ε - √(1-ᾱ) x_0 (arXiv 2202.00512), or x_0.
        beta_start, beta_end: of the schedules ``linear``, ``scaled_linear`` and ``sigmoid_betas``; else None.
        trained_betas: the betas themselves, of the schedule ``trained``.
        zero_snr: whether the betas are rescaled so that x_T is pure noise (arXiv 2305.08891, algorithm 1).
        clip_range: x_0 is clamped to ± this; None: not clamped.
        thresholding: replaces the clamp.
        spacing, steps_offset: which timesteps a chain visits, see `sampling.grid`.
        set_alpha_to_one: for ``ddim``: whether the last step goes to ᾱ = 1, or to that of timestep 0.
    """

    omitted_at_default: ClassVar[frozenset[str]] = frozenset(
        {
            "beta_start",
            "beta_end",
            "trained_betas",
            "zero_snr",
            "thresholding",
            "steps_offset",
            "set_alpha_to_one",
            "solver",
        }
    )

    prediction: Prediction = "epsilon"
    beta_start: Beta | None = None
    beta_end: Beta | None = None
    trained_betas: TrainedBetas | None = None
    zero_snr: bool = False
    clip_range: ClipRange | None = 1.0
    thresholding: Thresholding | None = None
    spacing: Spacing
    steps_offset: StepsOffset = 0
    set_alpha_to_one: bool = True
    solver: Solver | None = None


class SamplingSettings(CompactModel):
    """Settings that a scheduler's file may hold and a user may set; None: the default of the sampler's scheduler class.

    Names and meanings are diffusers'.
    """

    omitted_at_default: ClassVar[frozenset[str]] = frozenset(
        {
            "clip_sample",
            "clip_sample_range",
            "thresholding",
            "dynamic_thresholding_ratio",
            "sample_max_value",
            "timestep_spacing",
            "steps_offset",
            "set_alpha_to_one",
        }
    )

    clip_sample: bool | None = None
    clip_sample_range: ClipRange | None = None
    thresholding: bool | None = None
    dynamic_thresholding_ratio: Ratio | None = None
    sample_max_value: MaxValue | None = None
    timestep_spacing: Spacing | None = None
    steps_offset: StepsOffset | None = None
    set_alpha_to_one: bool | None = None


class TrainedDiffusion(CompactModel):
    """What the files of a pipeline say about its diffusion.

    The betas, T and the prediction are facts of the training: where the file lacks them, they are the defaults of the
    scheduler class that wrote it, whatever sampler is used. Settings are a choice of the sampling.

    Attributes:
        pipeline: class in model_index.json; None if there is none.
        scheduler: class in scheduler_config.json; None if there is none, so that DDPMScheduler's defaults are assumed.
        timesteps: T.
        variance: of DDPMScheduler; None if the file does not say.
        solver: of a multistep scheduler's file; None otherwise.
        notes: what a user should know, one sentence each.
    """

    omitted_at_default: ClassVar[frozenset[str]] = frozenset(
        {"pipeline", "scheduler", "beta_start", "beta_end", "trained_betas", "zero_snr", "variance", "solver", "notes"}
    )

    pipeline: str | None = None
    scheduler: str | None = None
    timesteps: Timesteps = 1000
    schedule: CurveName = "linear"
    beta_start: Beta | None = 0.0001
    beta_end: Beta | None = 0.02
    trained_betas: TrainedBetas | None = None
    zero_snr: bool = False
    prediction: Prediction = "epsilon"
    variance: Variance | None = None
    settings: SamplingSettings = SamplingSettings()
    solver: Solver | None = None
    notes: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _check_betas(self) -> Self:
        if self.trained_betas is not None and len(self.trained_betas) != self.timesteps:
            raise ValueError(f"trained_betas has {len(self.trained_betas)} values for {self.timesteps} timesteps")
        return self

    @property
    def sampler(self) -> SamplerName | None:
        """The sampler of the pipeline's class, else of the scheduler's; None if there is none for that scheduler.

        DDIMPipeline makes a DDIMScheduler of whatever scheduler it is given. DDPMPipeline calls the one that it has.
        """
        if self.pipeline == "DDIMPipeline":
            return "ddim"
        return SAMPLER_OF_SCHEDULER.get(self.scheduler) if self.scheduler else "ddpm"

    @property
    def all_steps(self) -> bool:
        """Whether the default number of steps of ``ddim`` is T, as where a DDPMPipeline has a DDIMScheduler."""
        return self.pipeline == "DDPMPipeline" and self.scheduler == "DDIMScheduler"


_CLIPS: Final[frozenset[SamplerName]] = frozenset({"ddpm", "ddim"})
_MAY_CLIP: Final[frozenset[SamplerName]] = frozenset({"ddpm", "ddim", "heun"})
_THRESHOLDS: Final[frozenset[SamplerName]] = frozenset({"ddpm", "ddim", "dpmpp", "unipc"})
DEFAULT_SPACING: Final[dict[SamplerName, Spacing]] = {
    "ddpm": "leading",
    "ddim": "leading",
    "dpmpp": "linspace",
    "heun": "linspace",
    "unipc": "linspace",
}
_SOLVERS: Final[dict[SamplerName, Solver]] = {"dpmpp": Solver(type="midpoint"), "unipc": Solver(type="bh2")}
WITH_BETA_RANGE: Final[frozenset[CurveName]] = frozenset({"linear", "scaled_linear", "sigmoid_betas"})


def diffusion_for(name: SamplerName, trained: TrainedDiffusion, settings: SamplingSettings) -> Diffusion:
    """Returns what the sampler `name` uses of a pipeline's diffusion, as diffusers' ``from_config`` hands a
    configuration to another scheduler class: settings that the class has are kept, and the rest are its defaults.

    Args:
        settings: of the user; they come before the pipeline's.
    """

    def setting(field: str, default: object) -> object:
        chosen = getattr(settings, field)
        stored = getattr(trained.settings, field)
        return chosen if chosen is not None else stored if stored is not None else default

    thresholding, clip_range = None, None
    if name in _THRESHOLDS and setting("thresholding", False):
        thresholding = Thresholding.model_validate(
            {
                "ratio": setting("dynamic_thresholding_ratio", 0.995),
                "max_value": setting("sample_max_value", 1.0),
            }
        )
    # A user's own clip_sample counts for every sampler; a stored one only where the scheduler class has it.
    clips = settings.clip_sample
    if clips is None:
        clips = name in _MAY_CLIP and bool(setting("clip_sample", name in _CLIPS))
    if clips and thresholding is None:
        clip_range = setting("clip_sample_range", 1.0)
    solver = None
    if name in _SOLVERS:
        own = trained.scheduler == SCHEDULER_OF_SAMPLER[name]
        solver = trained.solver if own and trained.solver is not None else _SOLVERS[name]
    has_range = trained.schedule in WITH_BETA_RANGE
    return Diffusion.model_validate(
        {
            "prediction": trained.prediction,
            "beta_start": trained.beta_start if has_range else None,
            "beta_end": trained.beta_end if has_range else None,
            "trained_betas": trained.trained_betas,
            "zero_snr": trained.zero_snr,
            "clip_range": clip_range,
            "thresholding": thresholding,
            "spacing": setting("timestep_spacing", DEFAULT_SPACING[name]),
            "steps_offset": setting("steps_offset", 0),
            "set_alpha_to_one": bool(setting("set_alpha_to_one", True)) if name == "ddim" else True,
            "solver": solver,
        }
    )
