"""The manifests of an attempt: golden files, where things are mounted, and a shape that no value changes.

`python tests/unit/operator/manifests/test_render.py` writes the golden files anew; read the difference before you commit it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ddpm_operator.api import Claim, DDPMSampling, Metadata, Spec
from ddpm_operator.api.pod_overrides import LocalReference, PodOverrides
from ddpm_operator.manifests.render import (
    Attempt,
    OperatorPods,
    network_policy,
    output_claim,
    ray_cluster,
    token_secret,
)
from ddpm_operator.manifests.templating import Manifest, TemplateError, Templates
from ddpm_operator.manifests.tokens import Tokens
from ddpm_operator.manifests.validate import validate_templates
from ddpm_operator.planning.sizing import plan

HERE = Path(__file__).parent
ROOT = HERE.parents[3]
SAMPLINGS = ROOT / "tests" / "fixtures" / "samplings"
UID = "0e2f7b1c-9c4e-4a57-8d7e-5b1f6c2d3e4f"
OPERATOR = OperatorPods("ddpm-system", {"app.kubernetes.io/name": "ddpm-operator"})
IMAGE = "registry.example.com/ddpm-ray-worker:0.1.0"
TEMPLATES = Templates()

MakeSpec = Callable[..., Spec]


def attempt_at(sampling: Metadata, spec: Spec, **changes: Any) -> Attempt:  # noqa: ANN401
    fields: dict[str, Any] = {
        "sampling": sampling,
        "number": 1,
        "spec": spec,
        "plan": plan(spec),
        "image": spec.image or IMAGE,
        "ray_version": "2.60.0",
        "shared_output": "ReadWriteMany" in (spec.output.claim or Claim()).access_modes,
    }
    return Attempt(**fields | changes)


TOKENS = Tokens(ray="ray's token", progress="the driver's token", suffix="suffix")
SECRET = "secret"


def manifests(attempt: Attempt, tokens: Tokens = TOKENS) -> list[Manifest]:
    """Everything that is made for an attempt, in the order in which it is."""
    claim = output_claim(TEMPLATES, attempt.sampling, attempt.spec)
    made = [
        ray_cluster(TEMPLATES, attempt, tokens.secret_name(attempt.name)),
        network_policy(TEMPLATES, attempt, "cluster-uid", OPERATOR),
        token_secret(TEMPLATES, attempt, "cluster-uid", tokens),
    ]
    return [claim, *made] if claim else made


def golden_cases() -> Iterator[tuple[str, DDPMSampling]]:
    paths = [
        SAMPLINGS / "accepted.yaml",
        *(ROOT / "examples" / f"{name}.yaml" for name in ("digits", "gpu")),
    ]
    for path in paths:
        for document in yaml.safe_load_all(path.read_text()):
            document["metadata"] |= {"namespace": "research", "uid": UID}
            name = document["metadata"]["name"]
            yield (
                name if path.parent == SAMPLINGS else f"example-{path.stem}",
                DDPMSampling.from_document(document),
            )


def golden_text(sampling: DDPMSampling) -> str:
    made = manifests(attempt_at(sampling.metadata, sampling.spec))
    return str(yaml.safe_dump_all(made, sort_keys=False))


@pytest.mark.parametrize(("name", "sampling"), list(golden_cases()), ids=lambda it: it if isinstance(it, str) else "")
def test_the_manifests_are_the_golden_ones(name: str, sampling: DDPMSampling) -> None:
    assert golden_text(sampling) == (HERE / "golden" / f"{name}.yaml").read_text()


def pods(cluster: Manifest) -> dict[str, Any]:
    """The pod specs by role."""
    spec: Any = cluster["spec"]
    workers = {group["groupName"]: group["template"]["spec"] for group in spec["workerGroupSpecs"]}
    return {"head": spec["headGroupSpec"]["template"]["spec"], **workers}


def mounts(pod: Any) -> dict[str, tuple[str, bool]]:  # noqa: ANN401
    """Mount path -> (claim, read only) of the claims that a pod mounts."""
    claims = {
        volume["name"]: volume["persistentVolumeClaim"]["claimName"]
        for volume in pod["volumes"]
        if "persistentVolumeClaim" in volume
    }
    return {
        mount["mountPath"]: (claims[mount["name"]], mount["readOnly"])
        for mount in pod["containers"][0]["volumeMounts"]
        if mount["name"] in claims
    }


BIG = {"samples": 100_000}


def test_a_claim_of_one_pod_is_mounted_by_the_head_alone(metadata: Metadata, make_spec: MakeSpec) -> None:
    made = pods(ray_cluster(TEMPLATES, attempt_at(metadata, make_spec(**BIG), shared_output=False), SECRET))
    assert mounts(made["head"]) == {"/output": ("digits-output", False)}
    assert mounts(made["workers"]) == {}


def test_a_claim_of_many_pods_is_mounted_by_all(metadata: Metadata, make_spec: MakeSpec) -> None:
    spec = make_spec(**BIG, output={"uri": "pvc://work/a"})
    made = pods(ray_cluster(TEMPLATES, attempt_at(metadata, spec, shared_output=True), SECRET))
    assert mounts(made["head"]) == mounts(made["workers"]) == {"/output": ("work", False)}


def test_the_drivers_token_comes_from_the_attempts_secret_and_to_the_head_alone(
    metadata: Metadata, make_spec: MakeSpec
) -> None:
    attempt = attempt_at(metadata, make_spec(**BIG))
    cluster: Any = ray_cluster(TEMPLATES, attempt, SECRET)
    made = pods(cluster)
    reference = {"name": SECRET, "key": "progress_token"}
    token = {"name": "DDPM_PROGRESS_TOKEN", "valueFrom": {"secretKeyRef": reference}}
    assert token in made["head"]["containers"][0]["env"]
    assert {"name": "DDPM_PROGRESS_PORT", "value": "8500"} in made["head"]["containers"][0]["env"]
    assert not any("PROGRESS" in variable["name"] for variable in made["workers"]["containers"][0]["env"])
    assert cluster["spec"]["authOptions"] == {"mode": "token", "secretName": SECRET}


def test_the_attempts_secret_has_its_tokens_and_the_name_that_goes_with_them(
    metadata: Metadata, make_spec: MakeSpec
) -> None:
    attempt = attempt_at(metadata, make_spec())
    secret = token_secret(TEMPLATES, attempt, "cluster-uid", TOKENS)
    assert secret["metadata"]["name"] == f"{attempt.name}-suffix"
    assert secret["stringData"] == {"auth_token": TOKENS.ray, "progress_token": TOKENS.progress}


def test_whose_image_it_is_the_registry_is_asked_as_the_administrator_says(
    metadata: Metadata, make_spec: MakeSpec
) -> None:
    spec = make_spec(**BIG, image="registry.example.com/private:1")
    for policy in ("IfNotPresent", "Always"):
        made = pods(ray_cluster(TEMPLATES, attempt_at(metadata, spec, pull_policy=policy), SECRET))
        assert {pod["containers"][0]["imagePullPolicy"] for pod in made.values()} == {policy}


def test_a_checkpoint_on_a_claim_is_read_by_the_head_alone(metadata: Metadata, make_spec: MakeSpec) -> None:
    spec = make_spec(**BIG, model={"uri": "pvc://models/a.safetensors"}, output={"uri": "s3://bucket/a"})
    made = pods(ray_cluster(TEMPLATES, attempt_at(metadata, spec), SECRET))
    assert mounts(made["head"]) == {"/model": ("models", True)}
    assert mounts(made["workers"]) == {}


def test_one_claim_for_checkpoint_and_samples_is_one_volume(metadata: Metadata, make_spec: MakeSpec) -> None:
    spec = make_spec(model={"uri": "pvc://work/a.safetensors"}, output={"uri": "pvc://work/a"})
    head = pods(ray_cluster(TEMPLATES, attempt_at(metadata, spec), SECRET))["head"]
    assert mounts(head) == {"/output": ("work", False), "/model": ("work", True)}
    assert sum("persistentVolumeClaim" in volume for volume in head["volumes"]) == 1


def test_gpus_are_asked_for_by_workers_only(metadata: Metadata, make_spec: MakeSpec) -> None:
    resources = {"gpus": 4, "maxWorkers": 2, "gpuResourceName": "amd.com/gpu"}
    cluster: Any = ray_cluster(TEMPLATES, attempt_at(metadata, make_spec(**BIG, resources=resources)), SECRET)
    made, spec = pods(cluster), cluster["spec"]
    assert made["workers"]["containers"][0]["resources"]["limits"]["amd.com/gpu"] == "2"
    assert "amd.com/gpu" not in made["head"]["containers"][0]["resources"]["limits"]
    params = [spec["headGroupSpec"]["rayStartParams"], spec["workerGroupSpecs"][0]["rayStartParams"]]
    assert [group["num-gpus"] for group in params] == ["0", "2"]


def test_a_head_that_works_alone_has_slots_and_one_with_workers_has_none(
    metadata: Metadata, make_spec: MakeSpec
) -> None:
    def slots(spec: Spec) -> str:
        cluster: Any = ray_cluster(TEMPLATES, attempt_at(metadata, spec), SECRET)
        return str(cluster["spec"]["headGroupSpec"]["rayStartParams"]["num-cpus"])

    assert slots(make_spec(samples=1)) == "2"
    assert slots(make_spec(**BIG)) == "0"


def test_every_pod_passes_the_restricted_level(accepted: list[DDPMSampling]) -> None:
    for sampling in accepted:
        for pod in pods(ray_cluster(TEMPLATES, attempt_at(sampling.metadata, sampling.spec), SECRET)).values():
            assert pod["securityContext"]["runAsNonRoot"] is True
            assert pod["securityContext"]["runAsUser"] > 0
            assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
            assert pod["automountServiceAccountToken"] is False
            assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
            for container in pod["containers"]:
                assert container["securityContext"] == {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                }
                requests, limits = container["resources"]["requests"], container["resources"]["limits"]
                assert requests | {"cpu": ""} == limits | {"cpu": ""}
            sized = [volume["emptyDir"] for volume in pod["volumes"] if "emptyDir" in volume]
            assert all(volume["sizeLimit"] for volume in sized)
            assert {"emptyDir", "persistentVolumeClaim"} >= {k for v in pod["volumes"] for k in v if k != "name"}


def test_the_claim_belongs_to_nobody_unless_it_is_to_be_deleted(metadata: Metadata, make_spec: MakeSpec) -> None:
    kept: Any = output_claim(TEMPLATES, metadata, make_spec())
    assert "ownerReferences" not in kept["metadata"]
    output = {"claim": {"retentionPolicy": "Delete"}}
    deleted: Any = output_claim(TEMPLATES, metadata, make_spec(output=output))
    assert deleted["metadata"]["ownerReferences"][0]["uid"] == metadata.uid
    assert output_claim(TEMPLATES, metadata, make_spec(output={"uri": "s3://bucket/a"})) is None


def test_the_queue_label_is_on_the_cluster_and_on_nothing_else(metadata: Metadata, make_spec: MakeSpec) -> None:
    made = manifests(attempt_at(metadata, make_spec(queueName="research")))
    texts = [yaml.safe_dump(manifest) for manifest in made]
    cluster: Any = next(manifest for manifest in made if manifest["kind"] == "RayCluster")
    assert cluster["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "research"
    assert sum(text.count("queue-name") for text in texts) == 1
    assert "suspend" not in cluster["spec"], "that is its queue's"


@pytest.mark.parametrize(
    ("fields", "outside", "metadata_service"),
    [
        ({}, False, False),
        ({"model": {"uri": "pvc://a/b"}}, False, False),
        ({"output": {"uri": "s3://bucket/a"}}, True, True),
        ({"output": {"uri": "s3://bucket/a"}, "credentialsSecretRef": {"name": "s3"}}, True, False),
        ({"model": {"uri": "https://example.com/a"}}, True, False),
        ({"model": {"uri": "gs://bucket/a"}}, True, True),
    ],
)
def test_only_a_sampling_that_names_a_place_outside_may_go_there(
    metadata: Metadata, make_spec: MakeSpec, fields: dict[str, Any], outside: bool, metadata_service: bool
) -> None:
    attempt = attempt_at(metadata, make_spec(**fields), cloud_identity=True)
    policy: Any = network_policy(TEMPLATES, attempt, "uid", OPERATOR)
    blocks = [peer["ipBlock"] for rule in policy["spec"]["egress"] for peer in rule.get("to", ()) if "ipBlock" in peer]
    assert bool(blocks) == outside
    if outside:
        assert all(("except" not in block) == metadata_service for block in blocks)


def test_nobody_but_the_cluster_and_the_operator_may_come_in(metadata: Metadata, make_spec: MakeSpec) -> None:
    attempt = attempt_at(metadata, make_spec())
    policy: Any = network_policy(TEMPLATES, attempt, "uid", OPERATOR)
    own, operator = policy["spec"]["ingress"]
    assert own == {"from": [{"podSelector": {"matchLabels": {"ray.io/cluster": attempt.name}}}]}
    assert operator["from"] == [
        {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ddpm-system"}},
            "podSelector": {"matchLabels": {"app.kubernetes.io/name": "ddpm-operator"}},
        }
    ]
    assert sorted(port["port"] for port in operator["ports"]) == [8265, 8500]


@pytest.mark.parametrize("field", ["authOptions", "restartPolicy", "automountServiceAccountToken", "metadata"])
def test_a_replaced_template_cannot_drop_what_keeps_a_cluster_safe(
    tmp_path: Path, metadata: Metadata, make_spec: MakeSpec, field: str
) -> None:
    for name in ("raycluster.yaml.j2", "pod.yaml.j2"):
        lines = (ROOT / "templates" / name).read_text().splitlines(keepends=True)
        (tmp_path / name).write_text("".join(line for line in lines if not line.strip().startswith(f"{field}: ")))
    with pytest.raises(TemplateError, match="is not what the operator relies on"):
        ray_cluster(Templates(tmp_path), attempt_at(metadata, make_spec()), SECRET)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("pod.yaml.j2", "spec.automountServiceAccountToken"),
        ("pod.yaml.j2", "spec.securityContext.runAsNonRoot"),
        ("pod.yaml.j2", "spec.securityContext.seccompProfile"),
        ("networkpolicy.yaml.j2", "spec.podSelector"),
        ("networkpolicy.yaml.j2", "spec.policyTypes"),
    ],
)
def test_a_replaced_template_cannot_drop_it_of_workers_or_of_the_policy_either(
    tmp_path: Path, metadata: Metadata, make_spec: MakeSpec, name: str, path: str
) -> None:
    of_workers, field = name == "pod.yaml.j2", path.rpartition(".")[2]
    dropped = f"{{{{ ('{field}' if is_head else 'dropped') | tojson }}}}:" if of_workers else "dropped:"
    (tmp_path / name).write_text((ROOT / "templates" / name).read_text().replace(f"{field}:", dropped, 1))
    templates, attempt = Templates(tmp_path), attempt_at(metadata, make_spec(**BIG))
    with pytest.raises(TemplateError) as caught:
        validate_templates(templates, attempt, OPERATOR)
    where = f"spec.workerGroupSpecs[0].template.{path}" if of_workers else path
    assert str(caught.value).endswith(f"{where} is not what the operator relies on")


def test_a_replaced_template_cannot_give_workers_another_image(
    tmp_path: Path, metadata: Metadata, make_spec: MakeSpec
) -> None:
    shipped = (ROOT / "templates/pod.yaml.j2").read_text()
    line = "image: {{ image | tojson }}"
    assert line in shipped
    for image, fits in (("'mirror/' ~ image", True), ("image ~ ('' if is_head else '-slim')", False)):
        (tmp_path / "pod.yaml.j2").write_text(shipped.replace(line, f"image: {{{{ ({image}) | tojson }}}}"))
        attempt = attempt_at(metadata, make_spec(**BIG))
        with nullcontext() if fits else pytest.raises(TemplateError, match="head and workers have not one image"):
            ray_cluster(Templates(tmp_path), attempt, SECRET)


# Values that no API server would let through, for the templates must hold by themselves.
def with_text(text: str) -> Attempt:
    """An attempt with the same text in every place that takes one."""
    base = Spec.from_document(
        {
            "model": {"uri": "builtin://mnist"},
            "samples": 100_000,
            "resources": {"gpus": 2},
            "output": {"claim": {"storageClassName": "x"}},
        }
    )
    chosen = plan(base)
    reference = LocalReference.model_construct(name=text)
    overrides = PodOverrides.model_construct(
        node_selector={"a": text, text: "b"},
        labels={"c": text},
        annotations={"d": text, text: "e"},
        priority_class_name=text,
        runtime_class_name=text,
        scheduler_name=text,
        image_pull_secrets=(reference,),
        service_account_name=text,
    )
    spec = base.model_copy(
        update={
            "pod_overrides": overrides,
            "credentials_secret_ref": reference,
            "queue_name": text,
            "resources": base.resources.model_copy(update={"gpu_resource_name": text}),
            "output": base.output.model_copy(
                update={"claim": Claim.model_construct(storage_class_name=text, access_modes=(text,), size=text)}
            ),
        }
    )
    sampling = Metadata.model_construct(name="digits", namespace=text, uid="u")
    return Attempt(sampling, 1, spec, chosen, image=text, ray_version=text, shared_output=True)


def replaced(value: Any, old: str, new: str) -> Any:  # noqa: ANN401
    """The value with every text `old` in it, keys as well, as `new`."""
    match value:
        case dict():
            return {replaced(key, old, new): replaced(inner, old, new) for key, inner in value.items()}
        case list():
            return [replaced(inner, old, new) for inner in value]
        case _:
            return new if value == old else value


PLACEHOLDER = "PLACEHOLDER"
PLAIN = manifests(with_text(PLACEHOLDER), Tokens(PLACEHOLDER, PLACEHOLDER, "suffix"))


def shape_is_kept(text: str) -> bool:
    expected: list[Manifest] = replaced(PLAIN, PLACEHOLDER, text)
    return manifests(with_text(text), Tokens(text, text, "suffix")) == expected


def test_the_placeholder_reaches_every_manifest() -> None:
    assert [str(manifest).count(PLACEHOLDER) > 0 for manifest in PLAIN] == [True] * 4


@settings(deadline=None)
@given(st.text(min_size=1))
def test_no_text_changes_the_shape_of_a_manifest(text: str) -> None:
    # Of two equal keys one is lost, whatever writes them: that is the value's doing, not the template's.
    assert text in ("a", "d", "cpu", "memory") or shape_is_kept(text)


@pytest.mark.parametrize(
    "text",
    [
        "a\nkind: Secret",
        "a\n---\nkind: Secret",
        "{{ image }}",
        "{% include 'secret.yaml.j2' %}",
        '"}, "spec": {"hostNetwork": true}, "x": {"y": "',
        "'",
        "!!python/object/apply:os.system [id]",
        "*anchor",
        "no",
        "\U0001f600\u2028\x85\x00",
        "$(RAY_AUTH_TOKEN)`id`; rm -rf /",
    ],
)
def test_no_hostile_text_changes_the_shape_of_a_manifest(text: str) -> None:
    assert shape_is_kept(text)


def test_a_megabyte_does_not_change_the_shape_of_a_manifest(metadata: Metadata, make_spec: MakeSpec) -> None:
    text = "x: {{ y }}\n'" * 90_000
    assert len(text) > 1_000_000
    attempt = attempt_at(metadata, make_spec())
    cluster = ray_cluster(TEMPLATES, attempt_at(metadata, make_spec(), image=text), SECRET)
    assert cluster == replaced(ray_cluster(TEMPLATES, attempt, SECRET), IMAGE, text)


if __name__ == "__main__":
    for case, golden_sampling in golden_cases():
        (HERE / "golden" / f"{case}.yaml").write_text(golden_text(golden_sampling))
