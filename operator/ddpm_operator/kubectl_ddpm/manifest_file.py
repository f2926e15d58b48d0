"""Reads DDPMSamplings from a YAML file, and says what is wrong in them by line and field."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ddpm_operator.api import KIND, DDPMSampling
from ddpm_operator.api.model import JsonValue

_SHOULD = re.compile(r"^(?:Input|String|Tuple|Dictionary|Value) should")
Location = tuple[int | str, ...]


class ManifestError(Exception):
    """A file that holds no DDPMSampling, or a wrong one.

    Args:
        faults: sentences, each with file, line and field.
    """

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


class _Loader(yaml.SafeLoader):
    """As the API server's own reader: dates stay texts, and a key that comes twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[object, object]:
        seen: set[str] = set()
        for key, _ in node.value:
            wrong = "" if isinstance(key, yaml.ScalarNode) else "a key must be a text"
            if wrong or key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, wrong or f"{key.value} is there twice", key.start_mark
                )
            seen.add(key.value)
        return dict(super().construct_mapping(node, deep))


_Loader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


class Written(NamedTuple):
    """A DDPMSampling, and the document that it was written as, which may have labels and annotations."""

    document: dict[str, JsonValue]
    sampling: DDPMSampling

    @classmethod
    def read(cls, document: JsonValue) -> Written:
        """
        Raises:
            pydantic.ValidationError: as `DDPMSampling.from_document`, which takes nothing but an object.
        """
        sampling = DDPMSampling.from_document(document)
        return cls(document if isinstance(document, dict) else {}, sampling)


def samplings(text: str, where: str) -> list[Written]:
    """Every DDPMSampling of a YAML text, other kinds passed over.

    Args:
        text: one or more YAML documents.
        where: the file's name, for the sentences.

    Raises:
        FileFault: if one is wrong, or there is none.
    """
    found: list[Written] = []
    faults: list[str] = []
    for document, root in _documents(text, where):
        if document is None or (isinstance(document, dict) and document.get("kind", KIND) != KIND):
            continue
        try:
            found.append(Written.read(document))
        except ValidationError as error:
            wrong = sorted((_line(root, item), validation_message(item)) for item in error.errors())
            faults += [f"{where}:{line}: {sentence}" for line, sentence in wrong]
    if faults:
        raise ManifestError(faults)
    if not found:
        raise ManifestError([f"{where} holds no {KIND}: its kind must be {KIND}"])
    return found


def _documents(text: str, where: str) -> Iterator[tuple[JsonValue, yaml.Node | None]]:
    """Every document with its tree, which knows the lines."""
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
        raise ManifestError([f"{where}{line}: {error.problem or error.context}"]) from error
    except yaml.reader.ReaderError as error:
        raise ManifestError([f"{where}: character {error.position + 1} is not allowed in YAML"]) from error
    except (TypeError, ValueError, RecursionError) as error:
        raise ManifestError([f"{where}: holds what no Kubernetes object can hold: {error}"]) from error


def _path(item: ErrorDetails) -> Location:
    field = item.get("ctx", {}).get("field", "")
    return (*item["loc"], *(part for part in str(field).split(".") if part))


def _line(root: yaml.Node | None, item: ErrorDetails) -> int:
    """The line of the field, or of the nearest thing above it that is there."""
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
    """What is wrong, beginning with the field.

    Args:
        names: what to call a field by its path, where not by that.
    """
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in _path(item))
    path = "".join(parts).lstrip(".") or "the document"
    path = names.get(path, path)
    match item["type"]:
        case "missing":
            return f"{path} is missing"
        case "extra_forbidden":
            return f"{path} is not known{_near(item['loc'])}"
        case "rule":
            return f"{path}: {item['msg']}"
        case _:
            given = item["input"]
            short = isinstance(given, str | int | float | None) and len(str(given)) < 80
            but = f", not {given!r}" if short else ""
            quotes = "; write it in quotes" if item["type"] == "string_type" else ""
            return f"{path} {_SHOULD.sub('must', item['msg'])}{but}{quotes}"


def _near(location: Location) -> str:
    """What was perhaps meant by a field that is not known."""
    *above, last = location
    model = _model_at(above)
    known = [field.alias or name for name, field in model.model_fields.items()] if model else []
    close = difflib.get_close_matches(str(last), known, n=1)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; known are {', '.join(known)}" if known else ""


def _model_at(location: Sequence[int | str]) -> type[BaseModel] | None:
    model: type[BaseModel] | None = DDPMSampling
    for part in location:
        if isinstance(part, str) and model:
            fields = (field for name, field in model.model_fields.items() if (field.alias or name) == part)
            model = next((_model_in(field.annotation) for field in fields), None)
    return model


def _model_in(annotation: object) -> type[BaseModel] | None:
    """The model in an optional, annotated or repeated type."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, (_model_in(argument) for argument in get_args(annotation))), None)
