"""An administrator's templates: a broken one keeps the operator from starting, and is never half applied."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from ddpm_operator.manifests.render import OperatorPods
from ddpm_operator.manifests.templating import TemplateError, Templates, shipped_templates
from ddpm_operator.manifests.validate import validate_all_templates
from ddpm_operator.planning.image_reference import WorkerImage
from tests.fakes.api_server import SAMPLINGS, ApiServer
from tests.unit.operator.controller.test_controller import SPEC, Driver, live

IMAGE, OPERATOR = WorkerImage("worker:1", "2.60.0"), OperatorPods("ddpm-ray", {"app": "operator"})
NAMES = sorted(path.name for path in shipped_templates().glob("*.j2"))
TO_A_CLAIM = {key: it for key, it in SPEC.items() if key != "output"}


def templates(folder: Path, name: str, text: str) -> Templates:
    (folder / name).write_text(text)
    return Templates(folder)


@pytest.mark.parametrize("name", NAMES)
def test_whichever_template_breaks_it_is_reported_and_nothing_of_the_attempt_is_made(tmp_path: Path, name: str) -> None:
    server = ApiServer()
    broken = templates(tmp_path, name, "kind: Anything\nmetadata: {{ nobody | tojson }}\n")
    asyncio.run(live(server, "refused", Driver(), broken, TO_A_CLAIM))
    status = server.objects[f"{SAMPLINGS}/digits"]["status"]
    assert (status["phase"], status["failure"]["reason"]) == ("Failed", "InternalError")
    assert f"{name}, line 2: 'nobody' is undefined" in status["failure"]["message"]
    assert {path.split("/")[-2] for path in server.objects} <= {"ddpmsamplings", "events"}
    assert {path.split("/")[-2] for (what, path) in server.changed if what == "made"} <= {"events"}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{{ nobody | tojson }}", "'nobody' is undefined"),
        ("{{ 'a text' }}", "every value must be written through tojson"),
        ("{% endfor %}", "Encountered unknown tag 'endfor'"),
    ],
)
def test_the_operator_does_not_start_with_a_broken_template_and_names_its_line(
    tmp_path: Path, name: str, line: str, says: str
) -> None:
    text = (shipped_templates() / name).read_text()
    broken = templates(tmp_path, name, f"{text}\n{line}\n")
    with pytest.raises(TemplateError) as caught:
        validate_all_templates(broken, IMAGE, OPERATOR)
    number = text.count("\n") + 2
    assert f"{name}, line {number}: {says}" in str(caught.value).replace(": line", ", line")


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
def test_a_fault_that_only_some_samplings_meet_is_found_at_the_start_as_well(
    tmp_path: Path, name: str, condition: str
) -> None:
    fault = f"{{% if {condition} %}}{{{{ nobody | tojson }}}}{{% endif %}}"
    broken = templates(tmp_path, name, f"{(shipped_templates() / name).read_text()}\n{fault}\n")
    with pytest.raises(TemplateError, match="'nobody' is undefined"):
        validate_all_templates(broken, IMAGE, OPERATOR)


def test_the_shipped_templates_are_good_to_start_with() -> None:
    validate_all_templates(Templates(), IMAGE, OPERATOR)
