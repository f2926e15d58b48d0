"""Families of networks: what a family is, which are installed, and which one a checkpoint's files belong to.

A family is one light module. It recognises its files, reads their configuration into a spec, and only then, in a
worker, imports torch to build the network and to execute it fast. Other packages add families through the entry-point
group `GROUP`. Nothing in a checkpoint chooses code: a spec only holds the name of a family that is installed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Protocol

from numpy.typing import NDArray
from pydantic import JsonValue

from ddpm_inference.errors import InvalidSpec, ModelRejected
from ddpm_inference.job import Cost, Execution, ModelRequest, Precision
from ddpm_inference.network_spec import NetworkSpec

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

GROUP = "ddpm_inference.networks"
Weights = Mapping[str, NDArray[Any]]
Config = Mapping[str, JsonValue]
FLAGS = {
    "name": "--model_name",
    "downs": "--downs",
    "time_emb_dim": "--time_emb_dim",
    "img_size": "--img_size",
    "channels": "model.channels",  # a field of the job document only
    "time_embedding": "--time_embedding",
    "attention_norm": "--attention_norm",
}
MAX_LISTED = 3


class ModelFiles(Protocol):
    """What was found at the location of a checkpoint, whatever its format.

    Attributes:
        config: the network's config.json; None if there is none.
        weights: key -> array; the shapes alone are enough for `Family.read`.
        metadata: of a safetensors file that this program wrote.
    """

    @property
    def config(self) -> Config | None: ...
    @property
    def weights(self) -> Weights: ...
    @property
    def metadata(self) -> Any: ...  # noqa: ANN401 - checkpoint.safetensors_file.Metadata, of a layer above


class Predictor(Protocol):
    """A network that is prepared for sampling.

    Args:
        x: x_t, (B, C, H, W) float32.
        t: one of the timesteps that it was prepared for.
        labels: (B,) int64; None for a network without classes.

    Returns:
        the prediction, (B, C, H, W) float32, or of 2C channels with a learned variance.
    """

    def __call__(self, x: Tensor, t: float, labels: Tensor | None = None, /) -> Tensor: ...


class Family(Protocol):
    """A family of networks. Its module must not import torch; `build` and `predictor` may.

    Attributes:
        name: as in its specs; unique among the installed families.
    """

    @property
    def name(self) -> str: ...

    def recognises(self, files: ModelFiles) -> bool:
        """Returns whether the files are this family's, by their configuration or keys. Must not raise."""
        ...

    def read(self, files: ModelFiles, request: ModelRequest) -> NetworkSpec:
        """Returns the complete architecture; `request` says what the files do not.

        Raises:
            InvalidSpec: if the request contradicts the files.
            ModelRejected: if the configuration is not one that can be built and sampled, naming the field.
        """
        ...

    def notes(self, files: ModelFiles, request: ModelRequest) -> list[str]:
        """Returns what `read` assumed, one sentence each."""
        ...

    def shapes(self, spec: NetworkSpec) -> Mapping[str, tuple[int, ...]]:
        """Returns key -> shape of the network's state dict."""
        ...

    def check(self, spec: NetworkSpec) -> None:
        """Raises ModelRejected if the spec is inconsistent, such as an image size that the levels do not divide."""
        ...

    def describe(self, spec: NetworkSpec) -> str:
        """Returns the architecture in words, for messages."""
        ...

    def cost(self, spec: NetworkSpec) -> Cost:
        """Returns the cost of one evaluation for one sample."""
        ...

    def build(self, spec: NetworkSpec) -> nn.Module:
        """Builds the network with random weights, on torch's default device; see `check` for what it raises."""
        ...

    def predictor(
        self,
        network: nn.Module,
        spec: NetworkSpec,
        timesteps: Sequence[float],
        *,
        precision: Precision,
        execution: Execution,
        device: torch.device | str,
    ) -> Predictor:
        """Prepares a network with its weights for sampling at `timesteps`.

        The bits of a row of the result must not depend on the other rows, nor on torch's number of threads beyond what
        the identity records.
        """
        ...


def family_of(spec: NetworkSpec) -> Family:
    """Returns the family of a spec.

    Raises:
        InvalidSpec: if it is not installed.
    """
    return family_named(spec.name)


def family_named(name: str) -> Family:
    """Returns the family with this name, of this package or another one.

    Raises:
        InvalidSpec: if it is not installed, or cannot be loaded.
    """
    families = builtin_families()
    if name in families:
        return families[name]
    others = other_families()
    if name not in others:
        raise InvalidSpec(
            f"there is no network {name!r}: installed are {', '.join([*families, *others])}",
            hint=f"install the package that adds it (entry-point group {GROUP}) here and on every node",
        )
    return others[name]()


def recognised(files: ModelFiles, request: ModelRequest) -> Family:
    """Returns the family that recognises the files.

    Raises:
        InvalidSpec: if the request names another family, or one that is not installed.
        ModelRejected: if no installed family does.
    """
    found = next((family for family in builtin_families().values() if family.recognises(files)), None)
    if found is None:
        found = next((family for load in other_families().values() if (family := load()).recognises(files)), None)
    if found is None:
        raise ModelRejected(_unknown(files))
    if request.name not in (None, found.name):
        refuse_contradictions(request, {"name": found.name}, "configuration says" if files.config else "weights say")
    return found


def _unknown(files: ModelFiles) -> str:
    if files.config is not None:
        name = files.config.get("_class_name")
        return (
            f"its config.json is of a {name}, which no installed family of networks knows"
            if name
            else "its config.json is not that of a known network: it has neither _class_name nor block_out_channels"
        )
    return (
        f"its {len(files.weights)} keys belong to neither a Unet nor a SimpleUnet: "
        f"{list_some('unknown', files.weights) or 'it is empty'}"
    )


@cache
def builtin_families() -> dict[str, Family]:
    """Returns name -> family of this package."""
    from ddpm_inference.models.guide import SIMPLE_UNET, UNET
    from ddpm_inference.models.unet2d import UNET2D

    return {family.name: family for family in (UNET, SIMPLE_UNET, UNET2D)}


@cache
def other_families() -> dict[str, Callable[[], Family]]:
    """Returns name -> loader of the families of other packages. The names of this package cannot be replaced."""

    def loader(name: str, load: Callable[[], Any], package: str) -> Callable[[], Family]:
        @cache
        def family() -> Family:
            try:
                loaded: Family = load()
            except (ImportError, AttributeError) as error:
                raise InvalidSpec(
                    f"the network {name} of the package {package} cannot be loaded: {error}",
                    hint=f"install a version of {package} that fits, or remove it",
                ) from error
            if loaded.name != name:
                raise InvalidSpec(f"the package {package} adds the network {name}, but calls it {loaded.name}")
            return loaded

        return family

    return {
        entry.name: loader(entry.name, entry.load, entry.dist.name if entry.dist else entry.value)
        for entry in entry_points(group=GROUP)
        if entry.name not in builtin_families()
    }


def refuse_contradictions(request: ModelRequest, known: dict[str, object], source: str) -> None:
    """Raises InvalidSpec if a field of the request differs from what the checkpoint says."""
    for field, flag in FLAGS.items():
        requested = getattr(request, field)
        if requested is not None and field in known and requested != known[field]:
            raise InvalidSpec(
                f"{flag} {_format_flag(requested)} contradicts the checkpoint, "
                f"whose {source} {_format_flag(known[field])}",
                hint=f"omit {flag}, or use another checkpoint",
            )


def _format_flag(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def printable_shape(shape: tuple[int, ...]) -> str:
    """Returns a shape as ``3x4``."""
    return "x".join(map(str, shape)) or "a scalar"


def list_some(what: str, keys: Collection[str]) -> str:
    """Returns ``5 unknown (a, b, c, ...)`` with at most `MAX_LISTED` keys, or "" for none."""
    if not keys:
        return ""
    return f"{len(keys)} {what} ({', '.join(sorted(keys)[:MAX_LISTED])}{', ...' if len(keys) > MAX_LISTED else ''})"
