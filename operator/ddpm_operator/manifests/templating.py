"""A Jinja2 environment for YAML templates in which a value cannot change the structure of the document.

Administrators may replace templates, and values come from users. Therefore the environment is sandboxed, an undefined
name is an error, every value must pass through `tojson`, and `tojson` writes a single YAML scalar or flow collection.
"""

from __future__ import annotations

import json
import re
import traceback
from collections.abc import Mapping
from pathlib import Path

import jinja2
import yaml
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ddpm_operator.api.model import JsonValue

Manifest = dict[str, JsonValue]

# YAML requires the indicator "? " before a key of more than 1024 characters.
_MAX_IMPLICIT_KEY = 1000


class TemplateError(Exception):
    """A template does not parse or render, or its result lacks a required field.

    Args:
        template: the file name of the template.
        problem: what is wrong, with the line if it is known.
    """

    def __init__(self, template: str, problem: str) -> None:
        super().__init__(f"template {template}: {problem}")


class _Json(str):
    """A string that `tojson` has written."""

    __slots__ = ()


def to_json(value: object) -> _Json:
    """Returns the value as JSON on one line of printable ASCII, which YAML 1.1 parses to the same value.

    Two deviations from JSON: a character outside the BMP is written as ``\\U…``, because YAML reads a surrogate pair
    as two characters; and a key that is too long for an implicit YAML key gets the indicator ``? ``.

    Raises:
        TypeError: for a value that JSON cannot represent, and for a float, which YAML 1.1 may parse as a string.
        jinja2.UndefinedError: for an undefined name.
    """
    if isinstance(value, jinja2.Undefined):
        str(value)  # raises UndefinedError with the name
    return _Json(_serialize(value))


def _serialize(value: object) -> str:
    match value:
        case dict():
            return "{" + ", ".join(f"{_key(str(key))}: {_serialize(inner)}" for key, inner in value.items()) + "}"
        case list() | tuple():
            return "[" + ", ".join(map(_serialize, value)) + "]"
        case float():
            raise TypeError(f"{value} is a float: write it as a string")
        case _:
            return re.sub(r"[^\x20-\x7e]", _escape, json.dumps(value, ensure_ascii=False))


def _key(key: str) -> str:
    serialized = _serialize(key)
    return serialized if len(serialized) <= _MAX_IMPLICIT_KEY else f"? {serialized}"


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\U{code:08x}" if code > 0xFFFF else f"\\u{code:04x}"


def _require_json(value: object) -> _Json:
    if isinstance(value, jinja2.Undefined):
        str(value)  # raises UndefinedError with the name
    if not isinstance(value, _Json):
        raise jinja2.TemplateRuntimeError("every value must be written through tojson: {{ value | tojson }}")
    return value


def shipped_templates() -> Path:
    """Returns the folder of the shipped templates: inside the package in a wheel, at the root of a checkout."""
    package = Path(__file__).resolve().parents[1]
    return next(folder for folder in (package / "templates", package.parents[1] / "templates") if folder.is_dir())


class Templates:
    """The shipped templates, some of them possibly replaced.

    Args:
        replacements: a folder with files that replace shipped templates of the same name.
    """

    def __init__(self, replacements: Path | None = None) -> None:
        folders = [folder for folder in (replacements, shipped_templates()) if folder]
        self._environment = ImmutableSandboxedEnvironment(
            loader=jinja2.FileSystemLoader(folders),
            undefined=jinja2.StrictUndefined,
            finalize=_require_json,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
        )
        self._environment.globals.clear()
        self._environment.filters.clear()
        self._environment.filters["tojson"] = to_json

    def render(self, template: str, values: Mapping[str, object], required: Manifest) -> Manifest:
        """Renders a template and parses the result.

        Args:
            template: the file name of the template.
            values: the variables of the template.
            required: fields and values that the result must contain, also if the administrator replaced the template.

        Raises:
            TemplateError: if the template cannot be rendered, or the result is not a YAML object or lacks a field of
                `required`.
        """
        manifest = self._parse(template, self._render_text(template, values))
        path = _first_difference(required, manifest, "")
        if path:
            raise TemplateError(template, f"{path} must have the value that the operator requires")
        return manifest

    def _render_text(self, template: str, values: Mapping[str, object]) -> str:
        try:
            return self._environment.get_template(template).render(values)
        except jinja2.TemplateSyntaxError as error:
            raise TemplateError(error.name or template, f"line {error.lineno}: {error.message}") from error
        except (jinja2.TemplateError, TypeError, ValueError) as error:
            raise TemplateError(template, f"{_location(error)}{error}") from error

    def _parse(self, template: str, text: str) -> Manifest:
        try:
            document = yaml.load(text, yaml.CSafeLoader)
        except yaml.YAMLError as error:
            raise TemplateError(template, f"the result is not valid YAML: {error}") from error
        if not isinstance(document, dict):
            raise TemplateError(template, "the result is not a Kubernetes object")
        return document


def _location(error: Exception) -> str:
    """Returns the innermost template and line of a Jinja error, which Jinja adds to the traceback as frames."""
    lines = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.endswith(".j2")]
    return f"{Path(lines[-1].filename).name}, line {lines[-1].lineno}: " if lines else ""


def _first_difference(required: JsonValue, found: JsonValue, path: str) -> str:
    """Returns the path of the first value in `required` that `found` lacks; "" if there is none."""
    if isinstance(required, dict):
        if not isinstance(found, dict):
            return path
        differences = (
            _first_difference(value, found.get(key), f"{path}.{key}" if path else key)
            for key, value in required.items()
        )
        return next(filter(None, differences), "")
    if isinstance(required, list) and isinstance(found, list) and len(required) == len(found):
        differences = (
            _first_difference(value, item, f"{path}[{index}]")
            for index, (value, item) in enumerate(zip(required, found, strict=True))
        )
        return next(filter(None, differences), "")
    return "" if required == found else path
