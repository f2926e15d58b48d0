"""Reads DDPMSamplings from a YAML file (-f), and reports each error with its line and field."""

from __future__ import annotations

import difflib
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ddpm_operator.api import KIND, DDPMSampling
from ddpm_operator.api.model import JsonValue
from ddpm_operator.kubectl_ddpm.user_path import user_path

_SHOULD = re.compile(r"^(?:Input|String|Tuple|Dictionary|Value) should")
Location = tuple[int | str, ...]


class ManifestError(Exception):
    """A file, or flags, without a valid DDPMSampling.

    Args:
        messages: one per error, with file, line and field.
    """

    def __init__(self, messages: Sequence[str]) -> None:
        super().__init__("\n".join(messages))
        self.messages = messages


class _Loader(yaml.SafeLoader):
    """Loads YAML as the API server does: dates stay strings, and a duplicate key is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[object, object]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a string", key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"duplicate key {key.value}", key.start_mark)
            seen.add(key.value)
        return dict(super().construct_mapping(node, deep))


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


class SamplingManifest(NamedTuple):
    """A DDPMSampling, and the document it was parsed from, which may also have labels and annotations."""

    document: dict[str, JsonValue]
    sampling: DDPMSampling

    @classmethod
    def parse(cls, document: JsonValue) -> SamplingManifest:
        """Validates a document.

        Raises:
            pydantic.ValidationError: if it is not a valid DDPMSampling.
        """
        sampling = DDPMSampling.from_document(document)
        return cls(document if isinstance(document, dict) else {}, sampling)


def read_manifests(filename: str) -> list[SamplingManifest]:
    """Reads every DDPMSampling of a YAML file, or of standard input for -. Other kinds are skipped.

    Raises:
        ManifestError: if the file cannot be read, a DDPMSampling is invalid, or there is none.
    """
    try:
        text = sys.stdin.read() if filename == "-" else user_path(filename).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
        raise ManifestError([f"{filename}: {reason}"]) from error
    return _parse_manifests(text, "standard input" if filename == "-" else filename)


def _parse_manifests(text: str, source: str) -> list[SamplingManifest]:
    manifests: list[SamplingManifest] = []
    messages: list[str] = []
    for document, root in _documents(text, source):
        if document is None or (isinstance(document, dict) and document.get("kind", KIND) != KIND):
            continue
        try:
            manifests.append(SamplingManifest.parse(document))
        except ValidationError as error:
            located = sorted((_line(root, item), validation_message(item)) for item in error.errors())
            messages += [f"{source}:{line}: {message}" for line, message in located]
    if messages:
        raise ManifestError(messages)
    if not manifests:
        raise ManifestError([f"{source} contains no {KIND}: no document has the kind {KIND}"])
    return manifests


def _documents(text: str, source: str) -> Iterator[tuple[JsonValue, yaml.Node | None]]:
    """Yields every document with its YAML node tree, which has the line numbers."""
    try:
        loader = _Loader(text)
        while loader.check_node():
            root = loader.get_node()
            document = loader.construct_document(root)
            json.dumps(document)
            yield document, root
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        raise ManifestError([f"{source}{line}: {error.problem or error.context}"]) from error
    except yaml.reader.ReaderError as error:
        raise ManifestError([f"{source}: character {error.position + 1} is not allowed in YAML"]) from error
    except (TypeError, ValueError, RecursionError) as error:
        raise ManifestError([f"{source}: not valid in a Kubernetes object: {error}"]) from error


def _path(item: ErrorDetails) -> Location:
    field = item.get("ctx", {}).get("field", "")
    return (*item["loc"], *(part for part in str(field).split(".") if part))


def _line(root: yaml.Node | None, item: ErrorDetails) -> int:
    """Returns the line of a field, or of its nearest ancestor in the file."""
    line, node = 1, root
    for part in _path(item):
        if node is None:
            break
        line, node = _child(node, part, line)
    return line


def _child(node: yaml.Node, part: int | str, line: int) -> tuple[int, yaml.Node | None]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == part:
                return key.start_mark.line + 1, value
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part].start_mark.line + 1, node.value[part]
    return line, None


def validation_message(item: ErrorDetails, names: Mapping[str, str] = MappingProxyType({})) -> str:
    """Returns a message that begins with the field.

    Args:
        names: path -> the name to use for the field instead, such as its flag.
    """
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in _path(item))
    path = "".join(parts).lstrip(".") or "the document"
    path = names.get(path, path)
    match item["type"]:
        case "missing":
            return f"{path} is missing"
        case "extra_forbidden":
            return f"{path} is an unknown field{_suggestion(item['loc'])}"
        case "rule":
            return f"{path}: {item['msg']}"
        case _:
            given = item["input"]
            short = isinstance(given, str | int | float | None) and len(str(given)) < 80
            instead_of = f", not {given!r}" if short else ""
            if item["type"] == "string_type":
                quoted = f': "{given}"' if isinstance(given, int | float) and not isinstance(given, bool) else ""
                return f"{path} must be a string{instead_of}; write it in quotes{quoted}"
            return f"{path} {_SHOULD.sub('must', item['msg'])}{instead_of}"


def _suggestion(location: Location) -> str:
    """Suggests the closest known field for an unknown one, or else lists the known fields."""
    *parents, last = location
    model = _model_at(parents)
    known = [field.alias or name for name, field in model.model_fields.items()] if model else []
    close = difflib.get_close_matches(str(last), known, n=1)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; known fields: {', '.join(known)}" if known else ""


def _model_at(location: Sequence[int | str]) -> type[BaseModel] | None:
    """Returns the model class of a field of DDPMSampling."""
    model: type[BaseModel] | None = DDPMSampling
    for part in location:
        if isinstance(part, str) and model:
            fields = (field for name, field in model.model_fields.items() if (field.alias or name) == part)
            model = next((_model_in(field.annotation) for field in fields), None)
    return model


def _model_in(annotation: object) -> type[BaseModel] | None:
    """Returns the model class inside an optional, annotated or repeated type."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, (_model_in(argument) for argument in get_args(annotation))), None)
