"""The manifests of an attempt: golden files, mounts, security, required fields, and hostile values.

`python tests/unit/operator/manifests/test_render.py` rewrites the golden files. Review the diff before you commit it.
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
from ddpm_operator.api.status import Placement
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


def attempt_of(sampling: Metadata, spec: Spec, **changes: Any) -> Attempt:  # noqa: ANN401
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
    """Returns all manifests of an attempt in the order of their creation."""
    claim = output_claim(TEMPLATES, attempt.sampling, attempt.spec)
    rest = [
        ray_cluster(TEMPLATES, attempt, tokens.secret_name(attempt.name)),
        network_policy(TEMPLATES, attempt, "cluster-uid", OPERATOR),
        token_secret(TEMPLATES, attempt, "cluster-uid", tokens),
    ]
    return [claim, *rest] if claim else rest


def golden_cases() -> Iterator[tuple[str, DDPMSampling]]:
    paths = [
        SAMPLINGS / "accepted.yaml",
        *(ROOT / "examples" / f"{name}.yaml" for name in ("digits", "gpu", "hub")),
    ]
    for path in paths:
        for document in yaml.safe_load_all(path.read_text()):
            document["metadata"] |= {"namespace": "research", "uid": UID}
            name = document["metadata"]["name"]
            yield (
                name if path.parent == SAMPLINGS else f"example-{path.stem}",
                DDPMSampling.from_document(document),
            )


# Of the second attempt of each sampling in `LATER`.
PLACEMENT = Placement(
    node_labels={
        "kubernetes.io/arch": ("amd64",),
        "node.kubernetes.io/instance-type": ("c7i.2xlarge", "c7i.large"),
    },
    nodes=("node-1", "node-2"),
    excluded_nodes=("node-3", "node-4"),
)
LATER = ("digits", "everything")


def later_attempt(sampling: DDPMSampling) -> Attempt:
    return attempt_of(sampling.metadata, sampling.spec, number=2, placement=PLACEMENT)


def golden_text(sampling: DDPMSampling) -> str:
    rendered = manifests(attempt_of(sampling.metadata, sampling.spec))
    return str(yaml.safe_dump_all(rendered, sort_keys=False))


@pytest.mark.parametrize(("name", "sampling"), list(golden_cases()), ids=lambda it: it if isinstance(it, str) else "")
def test_manifests_equal_the_golden_files(name: str, sampling: DDPMSampling) -> None:
    assert golden_text(sampling) == (HERE / "golden" / f"{name}.yaml").read_text()


def later_text(sampling: DDPMSampling) -> str:
    return str(yaml.safe_dump(ray_cluster(TEMPLATES, later_attempt(sampling), SECRET), sort_keys=False))


@pytest.mark.parametrize(("name", "sampling"), [it for it in golden_cases() if it[0] in LATER], ids=LATER)
def test_a_later_attempt_equals_its_golden_file(name: str, sampling: DDPMSampling) -> None:
    assert later_text(sampling) == (HERE / "golden" / f"{name}-attempt-2.yaml").read_text()


@pytest.mark.parametrize(("samples", "drawing"), [(16, "head"), (100_000, "workers")], ids=["head", "workers"])
def test_only_pods_that_draw_are_placed(metadata: Metadata, make_spec: MakeSpec, samples: int, drawing: str) -> None:
    found = pods(ray_cluster(TEMPLATES, attempt_of(metadata, make_spec(samples=samples), placement=PLACEMENT), SECRET))
    assert [name for name, pod in found.items() if "affinity" in pod] == [drawing]


def pods(cluster: Manifest) -> dict[str, Any]:
    """Returns the pod specs by group name."""
    spec: Any = cluster["spec"]
    workers = {group["groupName"]: group["template"]["spec"] for group in spec["workerGroupSpecs"]}
    return {"head": spec["headGroupSpec"]["template"]["spec"], **workers}


def mounts(pod: Any) -> dict[str, tuple[str, bool]]:  # noqa: ANN401
    """Returns mount path -> (claim, read-only) for the claims of a pod."""
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


LARGE = {"samples": 100_000}


def test_read_write_once_claim_is_mounted_only_by_the_head(metadata: Metadata, make_spec: MakeSpec) -> None:
    rendered = pods(ray_cluster(TEMPLATES, attempt_of(metadata, make_spec(**LARGE), shared_output=False), SECRET))
    assert mounts(rendered["head"]) == {"/output": ("digits-output", False)}
    assert mounts(rendered["workers"]) == {}


def test_shared_claim_is_mounted_by_all_pods(metadata: Metadata, make_spec: MakeSpec) -> None:
    spec = make_spec(**LARGE, output={"uri": "pvc://work/a"})
    rendered = pods(ray_cluster(TEMPLATES, attempt_of(metadata, spec, shared_output=True), SECRET))
    assert mounts(rendered["head"]) == mounts(rendered["workers"]) == {"/output": ("work", False)}


def test_only_the_head_gets_the_progress_token(metadata: Metadata, make_spec: MakeSpec) -> None:
    attempt = attempt_of(metadata, make_spec(**LARGE))
    cluster: Any = ray_cluster(TEMPLATES, attempt, SECRET)
    rendered = pods(cluster)
    reference = {"name": SECRET, "key": "progress_token"}
    token = {"name": "DDPM_PROGRESS_TOKEN", "valueFrom": {"secretKeyRef": reference}}
    assert token in rendered["head"]["containers"][0]["env"]
    assert {"name": "DDPM_PROGRESS_PORT", "value": "8500"} in rendered["head"]["containers"][0]["env"]
    assert not any("PROGRESS" in variable["name"] for variable in rendered["workers"]["containers"][0]["env"])
    assert cluster["spec"]["authOptions"] == {"mode": "token", "secretName": SECRET}


def test_token_secret_has_both_tokens_and_the_derived_name(metadata: Metadata, make_spec: MakeSpec) -> None:
    attempt = attempt_of(metadata, make_spec())
    secret = token_secret(TEMPLATES, attempt, "cluster-uid", TOKENS)
    assert secret["metadata"]["name"] == f"{attempt.name}-suffix"
    assert secret["stringData"] == {"auth_token": TOKENS.ray, "progress_token": TOKENS.progress}


def test_pull_policy_also_applies_to_spec_image(metadata: Metadata, make_spec: MakeSpec) -> None:
    spec = make_spec(**LARGE, image="registry.example.com/private:1")
    for policy in ("IfNotPresent", "Always"):
        rendered = pods(ray_cluster(TEMPLATES, attempt_of(metadata, spec, pull_policy=policy), SECRET))
        assert {pod["containers"][0]["imagePullPolicy"] for pod in rendered.values()} == {policy}


def test_checkpoint_claim_is_mounted_only_by_the_head(metadata: Metadata, make_spec: MakeSpec) -> None:
    spec = make_spec(**LARGE, model={"uri": "pvc://models/a.safetensors"}, output={"uri": "s3://bucket/a"})
    rendered = pods(ray_cluster(TEMPLATES, attempt_of(metadata, spec), SECRET))
    assert mounts(rendered["head"]) == {"/model": ("models", True)}
    assert mounts(rendered["workers"]) == {}


def test_claim_for_checkpoint_and_samples_is_one_volume(metadata: Metadata, make_spec: MakeSpec) -> None:
    spec = make_spec(model={"uri": "pvc://work/a.safetensors"}, output={"uri": "pvc://work/a"})
    head = pods(ray_cluster(TEMPLATES, attempt_of(metadata, spec), SECRET))["head"]
    assert mounts(head) == {"/output": ("work", False), "/model": ("work", True)}
    assert sum("persistentVolumeClaim" in volume for volume in head["volumes"]) == 1


def test_only_workers_request_gpus(metadata: Metadata, make_spec: MakeSpec) -> None:
    resources = {"gpus": 4, "maxWorkers": 2, "gpuResourceName": "amd.com/gpu"}
    cluster: Any = ray_cluster(TEMPLATES, attempt_of(metadata, make_spec(**LARGE, resources=resources)), SECRET)
    rendered, spec = pods(cluster), cluster["spec"]
    assert rendered["workers"]["containers"][0]["resources"]["limits"]["amd.com/gpu"] == "2"
    assert "amd.com/gpu" not in rendered["head"]["containers"][0]["resources"]["limits"]
    params = [spec["headGroupSpec"]["rayStartParams"], spec["workerGroupSpecs"][0]["rayStartParams"]]
    assert [group["num-gpus"] for group in params] == ["0", "2"]


def test_head_has_slots_only_without_workers(metadata: Metadata, make_spec: MakeSpec) -> None:
    def slots(spec: Spec) -> str:
        cluster: Any = ray_cluster(TEMPLATES, attempt_of(metadata, spec), SECRET)
        return str(cluster["spec"]["headGroupSpec"]["rayStartParams"]["num-cpus"])

    assert slots(make_spec(samples=1)) == "2"
    assert slots(make_spec(**LARGE)) == "0"


def test_pods_meet_the_restricted_pod_security_level(accepted: list[DDPMSampling]) -> None:
    for sampling in accepted:
        for pod in pods(ray_cluster(TEMPLATES, attempt_of(sampling.metadata, sampling.spec), SECRET)).values():
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


def test_claim_is_owned_only_with_retention_policy_delete(metadata: Metadata, make_spec: MakeSpec) -> None:
    kept: Any = output_claim(TEMPLATES, metadata, make_spec())
    assert "ownerReferences" not in kept["metadata"]
    output = {"claim": {"retentionPolicy": "Delete"}}
    deleted: Any = output_claim(TEMPLATES, metadata, make_spec(output=output))
    assert deleted["metadata"]["ownerReferences"][0]["uid"] == metadata.uid
    assert output_claim(TEMPLATES, metadata, make_spec(output={"uri": "s3://bucket/a"})) is None


def test_queue_label_is_only_on_the_raycluster(metadata: Metadata, make_spec: MakeSpec) -> None:
    rendered = manifests(attempt_of(metadata, make_spec(queueName="research")))
    texts = [yaml.safe_dump(manifest) for manifest in rendered]
    cluster: Any = next(manifest for manifest in rendered if manifest["kind"] == "RayCluster")
    assert cluster["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "research"
    assert sum(text.count("queue-name") for text in texts) == 1
    assert "suspend" not in cluster["spec"], "Kueue sets spec.suspend"


@pytest.mark.parametrize(
    ("fields", "external", "metadata_service"),
    [
        ({}, False, False),
        ({"model": {"uri": "pvc://a/b"}}, False, False),
        ({"output": {"uri": "s3://bucket/a"}}, True, True),
        ({"output": {"uri": "s3://bucket/a"}, "credentialsSecretRef": {"name": "s3"}}, True, False),
        ({"model": {"uri": "https://example.com/a"}}, True, False),
        ({"model": {"uri": "hf://org/name"}}, True, False),
        ({"model": {"uri": "gs://bucket/a"}}, True, True),
    ],
)
def test_external_egress_requires_a_remote_uri(
    metadata: Metadata, make_spec: MakeSpec, fields: dict[str, Any], external: bool, metadata_service: bool
) -> None:
    attempt = attempt_of(metadata, make_spec(**fields), cloud_identity=True)
    policy: Any = network_policy(TEMPLATES, attempt, "uid", OPERATOR)
    blocks = [peer["ipBlock"] for rule in policy["spec"]["egress"] for peer in rule.get("to", ()) if "ipBlock" in peer]
    assert bool(blocks) == external
    if external:
        assert all(("except" not in block) == metadata_service for block in blocks)


def test_ingress_allows_only_the_cluster_and_the_operator(metadata: Metadata, make_spec: MakeSpec) -> None:
    attempt = attempt_of(metadata, make_spec())
    policy: Any = network_policy(TEMPLATES, attempt, "uid", OPERATOR)
    cluster, operator = policy["spec"]["ingress"]
    assert cluster == {"from": [{"podSelector": {"matchLabels": {"ray.io/cluster": attempt.name}}}]}
    assert operator["from"] == [
        {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ddpm-system"}},
            "podSelector": {"matchLabels": {"app.kubernetes.io/name": "ddpm-operator"}},
        }
    ]
    assert sorted(port["port"] for port in operator["ports"]) == [8265, 8500]


@pytest.mark.parametrize("field", ["authOptions", "restartPolicy", "automountServiceAccountToken", "metadata"])
def test_replaced_template_must_keep_required_fields(
    tmp_path: Path, metadata: Metadata, make_spec: MakeSpec, field: str
) -> None:
    for name in ("raycluster.yaml.j2", "pod.yaml.j2"):
        lines = (ROOT / "templates" / name).read_text().splitlines(keepends=True)
        (tmp_path / name).write_text("".join(line for line in lines if not line.strip().startswith(f"{field}: ")))
    with pytest.raises(TemplateError, match="must have the value that the operator requires"):
        ray_cluster(Templates(tmp_path), attempt_of(metadata, make_spec()), SECRET)


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
def test_replaced_template_must_keep_fields_of_workers_and_policy(
    tmp_path: Path, metadata: Metadata, make_spec: MakeSpec, name: str, path: str
) -> None:
    of_workers, field = name == "pod.yaml.j2", path.rpartition(".")[2]
    dropped = f"{{{{ ('{field}' if is_head else 'dropped') | tojson }}}}:" if of_workers else "dropped:"
    (tmp_path / name).write_text((ROOT / "templates" / name).read_text().replace(f"{field}:", dropped, 1))
    templates, attempt = Templates(tmp_path), attempt_of(metadata, make_spec(**LARGE))
    with pytest.raises(TemplateError) as caught:
        validate_templates(templates, attempt, OPERATOR)
    full_path = f"spec.workerGroupSpecs[0].template.{path}" if of_workers else path
    assert str(caught.value).endswith(f"{full_path} must have the value that the operator requires")


def test_replaced_template_must_use_one_image_for_all_pods(
    tmp_path: Path, metadata: Metadata, make_spec: MakeSpec
) -> None:
    shipped = (ROOT / "templates/pod.yaml.j2").read_text()
    line = "image: {{ image | tojson }}"
    assert line in shipped
    for image, valid in (("'mirror/' ~ image", True), ("image ~ ('' if is_head else '-slim')", False)):
        (tmp_path / "pod.yaml.j2").write_text(shipped.replace(line, f"image: {{{{ ({image}) | tojson }}}}"))
        attempt = attempt_of(metadata, make_spec(**LARGE))
        with (
            nullcontext() if valid else pytest.raises(TemplateError, match="head and workers must have the same image")
        ):
            ray_cluster(Templates(tmp_path), attempt, SECRET)


def with_text(text: str) -> Attempt:
    """Returns an attempt with the text in every string field, without validation: the API server would reject most."""
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
    """Returns the value with every string equal to `old`, including keys, replaced by `new`."""
    match value:
        case dict():
            return {replaced(key, old, new): replaced(inner, old, new) for key, inner in value.items()}
        case list():
            return [replaced(inner, old, new) for inner in value]
        case _:
            return new if value == old else value


PLACEHOLDER = "PLACEHOLDER"
PLACEHOLDER_MANIFESTS = manifests(with_text(PLACEHOLDER), Tokens(PLACEHOLDER, PLACEHOLDER, "suffix"))


def keeps_structure(text: str) -> bool:
    expected: list[Manifest] = replaced(PLACEHOLDER_MANIFESTS, PLACEHOLDER, text)
    return manifests(with_text(text), Tokens(text, text, "suffix")) == expected


def test_placeholder_occurs_in_every_manifest() -> None:
    assert [str(manifest).count(PLACEHOLDER) > 0 for manifest in PLACEHOLDER_MANIFESTS] == [True] * 4


@settings(deadline=None, max_examples=50)
@given(st.text(min_size=1))
def test_arbitrary_strings_keep_the_manifest_structure(text: str) -> None:
    # These texts equal other keys of the same map, so one of the two entries is lost before rendering.
    assert text in ("a", "d", "cpu", "memory") or keeps_structure(text)


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
def test_hostile_strings_keep_the_manifest_structure(text: str) -> None:
    assert keeps_structure(text)


def test_megabyte_string_keeps_the_manifest_structure(metadata: Metadata, make_spec: MakeSpec) -> None:
    text = "x: {{ y }}\n'" * 90_000
    assert len(text) > 1_000_000
    attempt = attempt_of(metadata, make_spec())
    cluster = ray_cluster(TEMPLATES, attempt_of(metadata, make_spec(), image=text), SECRET)
    assert cluster == replaced(ray_cluster(TEMPLATES, attempt, SECRET), IMAGE, text)


if __name__ == "__main__":
    for case, golden_sampling in golden_cases():
        (HERE / "golden" / f"{case}.yaml").write_text(golden_text(golden_sampling))
        if case in LATER:
            (HERE / "golden" / f"{case}-attempt-2.yaml").write_text(later_text(golden_sampling))
