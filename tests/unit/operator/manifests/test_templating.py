"""Templates fill values into YAML, and nothing that a value holds changes the document's shape."""

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


@settings(deadline=None)
@given(JSON)
def test_what_tojson_writes_is_read_as_the_same_value(value: object) -> None:
    written = to_json(value)
    assert written.isascii()
    assert written.isprintable()
    for loader in (yaml.SafeLoader, yaml.CSafeLoader):
        assert yaml.load(f"key: {written}\nnext: 1", loader) == {"key": value, "next": 1}  # noqa: S506 - safe both


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_text_stays_one_text(text: str) -> None:
    assert yaml.safe_load(f"- {to_json(text)}\n- 1") == [text, 1]
    assert yaml.safe_load(f"{to_json(text)}: 1") == {text: 1}


@pytest.mark.parametrize("length", [999, 1000, 1023, 1024, 1025, 100_000])
@pytest.mark.parametrize("loader", [yaml.SafeLoader, yaml.CSafeLoader])
def test_a_key_of_any_length_stays_a_key(length: int, loader: type[yaml.SafeLoader]) -> None:
    value = {"x" * length: {"\n" * length: 1}, "next": 2}
    assert yaml.load(f"- {to_json(value)}", loader) == [value]  # noqa: S506 - safe both


@pytest.mark.parametrize("value", [0.5, [float("nan")], {"a": 1e-5}, {1, 2}, b"x"])
def test_what_yaml_would_read_as_something_else_is_refused(value: object) -> None:
    with pytest.raises(TypeError):
        to_json(value)


def templates(folder: Path, text: str) -> Templates:
    (folder / "t.yaml.j2").write_text(text)
    return Templates(folder)


def fault(templates: Templates, values: dict[str, object], must: Manifest | None = None) -> str:
    with pytest.raises(TemplateError) as caught:
        templates.render("t.yaml.j2", values, must or {})
    return str(caught.value)


def test_a_template_is_filled_in(tmp_path: Path) -> None:
    text = "kind: {{ kind | tojson }}\n{% if more %}\nmore: {{ more | tojson }}\n{% endif %}\n"
    filled = templates(tmp_path, text).render("t.yaml.j2", {"kind": "A: b", "more": {"x": [1]}}, {"kind": "A: b"})
    assert filled == {"kind": "A: b", "more": {"x": [1]}}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("kind: {{ kind }}", "line 1: every value is written through tojson"),
        ("a: 1\nkind: {{ kind ~ 'x' }}", "line 2: every value is written through tojson"),
        ("kind: {{ (kind | tojson) ~ 'x' }}", "every value is written through tojson"),
        ("kind: {{ (kind | tojson)[1:] }}", "every value is written through tojson"),
        ("kind: {{ 'constant' }}", "every value is written through tojson"),
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
        ("kind: [1", "the result is no YAML"),
        ("kind: !!python/object:os.system x", "the result is no YAML"),
        ("- kind", "the result is no Kubernetes object"),
        ("", "the result is no Kubernetes object"),
        ("a: 1\n---\nb: 2", "the result is no YAML"),
    ],
)
def test_a_broken_template_is_named_with_what_is_wrong(tmp_path: Path, text: str, says: str) -> None:
    said = fault(templates(tmp_path, text), {"kind": "A", "deep": {}, "number": {1, 2}})
    assert says in said
    assert "t.yaml.j2" in said


def test_a_fault_in_an_included_template_is_found_there(tmp_path: Path) -> None:
    (tmp_path / "inner.yaml.j2").write_text("a: 1\nb: {{ nothing | tojson }}")
    said = fault(templates(tmp_path, "{% include 'inner.yaml.j2' %}"), {})
    assert "inner.yaml.j2, line 2: 'nothing' is undefined" in said


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
def test_a_template_cannot_leave_out_what_the_operator_relies_on(tmp_path: Path, text: str, path: str) -> None:
    must: Manifest = {"kind": "Secret", "metadata": {"name": "a", "labels": {"x": "1"}}}
    assert f"{path} is not what the operator relies on" in fault(templates(tmp_path, text), {}, must)


def test_a_template_may_add_to_what_the_operator_relies_on(tmp_path: Path) -> None:
    text = "kind: Secret\nmetadata: {name: a, labels: {x: '1', mine: '2'}}\nmore: 1"
    must: Manifest = {"kind": "Secret", "metadata": {"name": "a", "labels": {"x": "1"}}}
    assert templates(tmp_path, text).render("t.yaml.j2", {}, must)["more"] == 1


def test_a_shipped_template_is_used_unless_it_is_replaced(tmp_path: Path) -> None:
    values = {"metadata": {"name": "a"}, "data": {"auth_token": "t"}}
    assert Templates(tmp_path).render("secret.yaml.j2", values, {})["immutable"] is True
    (tmp_path / "secret.yaml.j2").write_text("kind: Mine\nmetadata: {{ metadata | tojson }}")
    assert Templates(tmp_path).render("secret.yaml.j2", values, {}) == {"kind": "Mine", "metadata": {"name": "a"}}


@pytest.mark.parametrize("path", sorted(shipped_templates().glob("*.j2")), ids=lambda path: path.name)
def test_every_value_of_a_shipped_template_goes_through_tojson(path: Path) -> None:
    tree = jinja2.Environment(autoescape=False).parse(path.read_text())  # noqa: S701 - only parsed
    written = [node for output in tree.find_all(nodes.Output) for node in output.nodes]
    values = [node for node in written if not isinstance(node, nodes.TemplateData)]
    assert values
    assert [node.lineno for node in values if not (isinstance(node, nodes.Filter) and node.name == "tojson")] == []


def test_a_megabyte_is_filled_in_whole(tmp_path: Path) -> None:
    text = "\n{{ x }}: '\"\U0001f600" * 80_000
    assert len(text.encode()) > 1_000_000
    filled = templates(tmp_path, "kind: {{ text | tojson }}").render("t.yaml.j2", {"text": text}, {})
    assert filled == {"kind": text}
