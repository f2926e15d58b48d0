"""Jinja2 that can only fill values into YAML: whatever a value holds, the document keeps its shape.

Administrators may replace templates, and values come from users. So the environment is a sandbox, an unknown name
is an error, nothing reaches the text but through `tojson`, and what `tojson` writes is one scalar or one flow
collection of YAML.
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

_LONGEST_PLAIN_KEY = 1000


class TemplateError(Exception):
    """A template that cannot be used: it does not parse, names what is not there, or makes something else.

    Args:
        template: file name.
        what: what is wrong, with the line where it is known.
    """

    def __init__(self, template: str, what: str) -> None:
        super().__init__(f"template {template}: {what}")
        self.template = template
        self.what = what


class _Json(str):
    """Text that `tojson` has written."""

    __slots__ = ()


def to_json(value: object) -> _Json:
    """JSON that YAML 1.1 reads as the same value, on one line of printable ASCII.

    Beyond JSON: a character outside the BMP is escaped as YAML does it, which takes a surrogate pair for two, and
    a key too long for YAML to see that it is one gets the mark of one.

    Raises:
        TypeError: for what JSON has no word for, and for floats, which YAML 1.1 may read as texts.
    """
    if isinstance(value, jinja2.Undefined):
        str(value)  # raises, with the name
    return _Json(_written(value))


def _written(value: object) -> str:
    match value:
        case dict():
            return "{" + ", ".join(f"{_key(str(key))}: {_written(inner)}" for key, inner in value.items()) + "}"
        case list() | tuple():
            return "[" + ", ".join(map(_written, value)) + "]"
        case float():
            raise TypeError(f"{value} is a float: write it as a text")
        case _:
            return re.sub(r"[^\x20-\x7e]", _escape, json.dumps(value, ensure_ascii=False))


def _key(key: str) -> str:
    written = _written(key)
    return written if len(written) <= _LONGEST_PLAIN_KEY else f"? {written}"


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\U{code:08x}" if code > 0xFFFF else f"\\u{code:04x}"


def _only_json(value: object) -> _Json:
    if isinstance(value, jinja2.Undefined):
        str(value)
    if not isinstance(value, _Json):
        raise jinja2.TemplateRuntimeError("every value is written through tojson: {{ value | tojson }}")
    return value


def shipped_templates() -> Path:
    """The folder of the shipped templates: in a wheel inside the package, in a checkout at its root."""
    package = Path(__file__).resolve().parents[1]
    return next(folder for folder in (package / "templates", package.parents[1] / "templates") if folder.is_dir())


class Templates:
    """The templates in use.

    Args:
        replacements: a folder whose files stand in for the shipped ones of the same name.
    """

    def __init__(self, replacements: Path | None = None) -> None:
        folders = [folder for folder in (replacements, shipped_templates()) if folder]
        self._environment = ImmutableSandboxedEnvironment(
            loader=jinja2.FileSystemLoader(folders),
            undefined=jinja2.StrictUndefined,
            finalize=_only_json,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
        )
        self._environment.globals.clear()
        self._environment.filters.clear()
        self._environment.filters["tojson"] = to_json

    def render(self, template: str, values: Mapping[str, object], must: Manifest) -> Manifest:
        """Fills in a template and reads the result.

        Args:
            template: file name.
            values: what the template may name.
            must: what the result has to hold, whoever wrote the template.

        Raises:
            TemplateFault: if it cannot be filled in, is no YAML object, or misses something of `must`.
        """
        manifest = self._parse(template, self._fill(template, values))
        missing = _missing(must, manifest, "")
        if missing:
            raise TemplateError(template, f"{missing} is not what the operator relies on")
        return manifest

    def _fill(self, template: str, values: Mapping[str, object]) -> str:
        try:
            return self._environment.get_template(template).render(values)
        except jinja2.TemplateSyntaxError as error:
            raise TemplateError(error.name or template, f"line {error.lineno}: {error.message}") from error
        except (jinja2.TemplateError, TypeError, ValueError) as error:
            raise TemplateError(template, f"{_where(error)}{error}") from error

    def _parse(self, template: str, text: str) -> Manifest:
        try:
            document = yaml.load(text, yaml.CSafeLoader)
        except yaml.YAMLError as error:
            raise TemplateError(template, f"the result is no YAML: {error}") from error
        if not isinstance(document, dict):
            raise TemplateError(template, "the result is no Kubernetes object")
        return document


def _where(error: Exception) -> str:
    """The line of the innermost template an error came from; Jinja puts it into the traceback."""
    lines = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.endswith(".j2")]
    return f"{Path(lines[-1].filename).name}, line {lines[-1].lineno}: " if lines else ""


def _missing(must: JsonValue, found: JsonValue, path: str) -> str:
    """The path of the first thing in `must` that is not in `found`; "" if all is there."""
    if isinstance(must, dict):
        if not isinstance(found, dict):
            return path
        gaps = (_missing(value, found.get(key), f"{path}.{key}" if path else key) for key, value in must.items())
        return next(filter(None, gaps), "")
    if isinstance(must, list) and isinstance(found, list) and len(must) == len(found):
        gaps = (_missing(value, it, f"{path}[{at}]") for at, (value, it) in enumerate(zip(must, found, strict=True)))
        return next(filter(None, gaps), "")
    return "" if must == found else path
