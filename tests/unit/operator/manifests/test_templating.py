"""Template rendering: no value can change the structure of the document, and errors name template and line."""

from __future__ import annotations

from pathlib import Path

import jinja2
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import nodes

from ddpm_operator.manifests.templating import Manifest, TemplateError, Templates, shipped_templates, to_json

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)
HOSTILE = [
    "a\nkind: Secret",
    "a\r\n---\nkind: Secret",
    "{{ 7 * 7 }}",
    "{% for x in y %}",
    "{# nothing #}",
    '"',
    "'",
    '"}, "kind": "Secret", "x": {"',
    "!!python/object/apply:os.system [id]",
    "&anchor *alias <<: *x",
    "# comment",
    "- item",
    "? key",
    "| block\n  more",
    "> folded\n\n",
    "no",
    "0x1F",
    "1e3",
    "2026-11-23",
    "~",
    "",
    " ",
    "\t",
    "\x00\x07\x1b\x7f",
    "\x85\u2028\u2029\ufeff",
    "\U0001f600\U0010ffff",
    "\\ud83d\\ude00 \\n \\",
    "</script>&amp;<>",
    "%YAML 1.1",
    "@`",
]


@settings(deadline=None, max_examples=50)
@given(JSON)
def test_tojson_round_trips_through_yaml(value: object) -> None:
    text = to_json(value)
    assert text.isascii()
    assert text.isprintable()
    for loader in (yaml.SafeLoader, yaml.CSafeLoader):
        assert yaml.load(f"key: {text}\nnext: 1", loader) == {"key": value, "next": 1}  # noqa: S506 - safe both


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_string_stays_a_single_scalar(text: str) -> None:
    assert yaml.safe_load(f"- {to_json(text)}\n- 1") == [text, 1]
    assert yaml.safe_load(f"{to_json(text)}: 1") == {text: 1}


@pytest.mark.parametrize("length", [999, 1000, 1023, 1024, 1025, 100_000])
@pytest.mark.parametrize("loader", [yaml.SafeLoader, yaml.CSafeLoader])
def test_key_of_any_length_stays_a_key(length: int, loader: type[yaml.SafeLoader]) -> None:
    value = {"x" * length: {"\n" * length: 1}, "next": 2}
    assert yaml.load(f"- {to_json(value)}", loader) == [value]  # noqa: S506 - safe both


@pytest.mark.parametrize("value", [0.5, [float("nan")], {"a": 1e-5}, {1, 2}, b"x"])
def test_values_without_an_exact_yaml_form_are_rejected(value: object) -> None:
    with pytest.raises(TypeError):
        to_json(value)


def templates(folder: Path, text: str) -> Templates:
    (folder / "t.yaml.j2").write_text(text)
    return Templates(folder)


def render_error(templates: Templates, values: dict[str, object], required: Manifest | None = None) -> str:
    with pytest.raises(TemplateError) as caught:
        templates.render("t.yaml.j2", values, required or {})
    return str(caught.value)


def test_template_renders_values(tmp_path: Path) -> None:
    text = "kind: {{ kind | tojson }}\n{% if more %}\nmore: {{ more | tojson }}\n{% endif %}\n"
    rendered = templates(tmp_path, text).render("t.yaml.j2", {"kind": "A: b", "more": {"x": [1]}}, {"kind": "A: b"})
    assert rendered == {"kind": "A: b", "more": {"x": [1]}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind: {{ kind }}", "line 1: every value must be written through tojson"),
        ("a: 1\nkind: {{ kind ~ 'x' }}", "line 2: every value must be written through tojson"),
        ("kind: {{ (kind | tojson) ~ 'x' }}", "every value must be written through tojson"),
        ("kind: {{ (kind | tojson)[1:] }}", "every value must be written through tojson"),
        ("kind: {{ 'constant' }}", "every value must be written through tojson"),
        ("a: 1\nb: 2\nkind: {{ kidn | tojson }}", "line 3: 'kidn' is undefined"),
        ("kind: {{ deep.er.est | tojson }}", "'dict object' has no attribute 'er'"),
        ("kind: {{ kind | safe }}", "No filter named 'safe'"),
        ("kind: {{ kind | upper | tojson }}", "No filter named 'upper'"),
        ("kind: {{ range(9) | list | tojson }}", "No filter named 'list'"),
        ("a: 1\nkind: {% if %}", "line 2: Expected an expression"),
        ("kind: {{ kind.__class__.__mro__ | tojson }}", "unsafe"),
        ("kind: {{ number | tojson }}", "not JSON serializable"),
        ("{% include 'other.j2' %}", "other.j2"),
        ("{% include '../secret' %}", "../secret"),
        ("kind: [1", "the result is not valid YAML"),
        ("kind: !!python/object:os.system x", "the result is not valid YAML"),
        ("- kind", "the result is not a Kubernetes object"),
        ("", "the result is not a Kubernetes object"),
        ("a: 1\n---\nb: 2", "the result is not valid YAML"),
    ],
)
def test_error_names_template_line_and_problem(tmp_path: Path, text: str, message: str) -> None:
    error = render_error(templates(tmp_path, text), {"kind": "A", "deep": {}, "number": {1, 2}})
    assert message in error
    assert "t.yaml.j2" in error


def test_error_in_an_included_template_names_that_template(tmp_path: Path) -> None:
    (tmp_path / "inner.yaml.j2").write_text("a: 1\nb: {{ nothing | tojson }}")
    error = render_error(templates(tmp_path, "{% include 'inner.yaml.j2' %}"), {})
    assert "inner.yaml.j2, line 2: 'nothing' is undefined" in error


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("kind: Pod", "kind"),
        ("kind: Secret\nmetadata: {name: b, labels: {x: '1'}}", "metadata.name"),
        ("kind: Secret\nmetadata: {name: a, labels: {}}", "metadata.labels.x"),
        ("kind: Secret\nmetadata: [a]", "metadata"),
        ("kind: Secret", "metadata"),
    ],
)
def test_missing_required_field_is_named(tmp_path: Path, text: str, path: str) -> None:
    required: Manifest = {"kind": "Secret", "metadata": {"name": "a", "labels": {"x": "1"}}}
    assert f"{path} must have the value that the operator requires" in render_error(
        templates(tmp_path, text), {}, required
    )


def test_template_may_add_fields(tmp_path: Path) -> None:
    text = "kind: Secret\nmetadata: {name: a, labels: {x: '1', mine: '2'}}\nmore: 1"
    required: Manifest = {"kind": "Secret", "metadata": {"name": "a", "labels": {"x": "1"}}}
    assert templates(tmp_path, text).render("t.yaml.j2", {}, required)["more"] == 1


def test_replacement_overrides_the_shipped_template(tmp_path: Path) -> None:
    values = {"metadata": {"name": "a"}, "data": {"auth_token": "t"}}
    assert Templates(tmp_path).render("secret.yaml.j2", values, {})["immutable"] is True
    (tmp_path / "secret.yaml.j2").write_text("kind: Mine\nmetadata: {{ metadata | tojson }}")
    assert Templates(tmp_path).render("secret.yaml.j2", values, {}) == {"kind": "Mine", "metadata": {"name": "a"}}


@pytest.mark.parametrize("path", sorted(shipped_templates().glob("*.j2")), ids=lambda path: path.name)
def test_shipped_templates_write_every_value_through_tojson(path: Path) -> None:
    tree = jinja2.Environment(autoescape=False).parse(path.read_text())  # noqa: S701 - only parsed
    output_nodes = [node for output in tree.find_all(nodes.Output) for node in output.nodes]
    values = [node for node in output_nodes if not isinstance(node, nodes.TemplateData)]
    assert values
    assert [node.lineno for node in values if not (isinstance(node, nodes.Filter) and node.name == "tojson")] == []


def test_megabyte_value_is_rendered_completely(tmp_path: Path) -> None:
    text = "\n{{ x }}: '\"\U0001f600" * 80_000
    assert len(text.encode()) > 1_000_000
    rendered = templates(tmp_path, "kind: {{ text | tojson }}").render("t.yaml.j2", {"text": text}, {})
    assert rendered == {"kind": text}
