"""A broken template of an administrator: the operator does not start with it, and creates nothing of an attempt."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from ddpm_operator.manifests.render import OperatorPods
from ddpm_operator.manifests.templating import TemplateError, Templates, shipped_templates
from ddpm_operator.manifests.validate import validate_all_templates
from ddpm_operator.planning.image_reference import WorkerImage
from tests.fakes.api_server import SAMPLINGS, ApiServer
from tests.fakes.operator import SPEC, FakeDriver, run_sampling

IMAGE, OPERATOR = WorkerImage("worker:1", "2.60.0"), OperatorPods("ddpm-ray", {"app": "operator"})
NAMES = sorted(path.name for path in shipped_templates().glob("*.j2"))
SPEC_WITH_CLAIM = {key: value for key, value in SPEC.items() if key != "output"}


def replace_template(folder: Path, name: str, text: str) -> Templates:
    (folder / name).write_text(text)
    return Templates(folder)


@pytest.mark.parametrize("name", NAMES)
def test_a_broken_template_fails_before_anything_is_created(tmp_path: Path, name: str) -> None:
    server = ApiServer()
    broken = replace_template(tmp_path, name, "kind: Anything\nmetadata: {{ missing | tojson }}\n")
    asyncio.run(run_sampling(server, FakeDriver(), templates=broken, spec=SPEC_WITH_CLAIM))
    status = server.objects[f"{SAMPLINGS}/digits"]["status"]
    assert (status["phase"], status["failure"]["reason"]) == ("Failed", "InternalError")
    assert f"{name}, line 2: 'missing' is undefined" in status["failure"]["message"]
    assert {path.split("/")[-2] for path in server.objects} <= {"ddpmsamplings", "events"}
    assert {path.split("/")[-2] for (verb, path) in server.writes if verb == "created"} <= {"events"}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("{{ missing | tojson }}", "'missing' is undefined"),
        ("{{ 'a text' }}", "every value must be written through tojson"),
        ("{% endfor %}", "Encountered unknown tag 'endfor'"),
    ],
)
def test_startup_validation_names_the_broken_line(tmp_path: Path, name: str, line: str, error: str) -> None:
    text = (shipped_templates() / name).read_text()
    broken = replace_template(tmp_path, name, f"{text}\n{line}\n")
    with pytest.raises(TemplateError) as caught:
        validate_all_templates(broken, IMAGE, OPERATOR)
    number = text.count("\n") + 2
    assert f"{name}, line {number}: {error}" in str(caught.value).replace(": line", ", line")


@pytest.mark.parametrize(
    ("name", "condition"),
    [
        ("raycluster.yaml.j2", "workers"),
        ("raycluster.yaml.j2", "not workers"),
        ("pod.yaml.j2", "credentials is not none"),
        ("pod.yaml.j2", "group.volumes and is_head"),
        ("pod.yaml.j2", "group.overrides"),
        ("claim.yaml.j2", "storage_class is not none"),
        ("networkpolicy.yaml.j2", "outside"),
    ],
)
def test_startup_validation_renders_optional_parts(tmp_path: Path, name: str, condition: str) -> None:
    broken_part = f"{{% if {condition} %}}{{{{ missing | tojson }}}}{{% endif %}}"
    broken = replace_template(tmp_path, name, f"{(shipped_templates() / name).read_text()}\n{broken_part}\n")
    with pytest.raises(TemplateError, match="'missing' is undefined"):
        validate_all_templates(broken, IMAGE, OPERATOR)


def test_the_shipped_templates_are_valid() -> None:
    validate_all_templates(Templates(), IMAGE, OPERATOR)
