"""The CustomResourceDefinition, from the types of `ddpm_operator.api`.

`python -m ddpm_operator.crd > charts/ddpm-ray/templates/crd.yaml` writes it anew.
"""

from __future__ import annotations

import sys
from typing import Any

import yaml

from ddpm_operator.api.resource import CATEGORY, GROUP, KIND, PLURAL, SHORT_NAME, SINGULAR, VERSION, DDPMSampling

# A JSON schema has no type of its own in Python; inside this module its nodes are what json gives.
Schema = dict[str, Any]

HEADER = """\
# Generated from the types of ddpm_operator.api by `python -m ddpm_operator.crd`: change those, not this.
"""

# (name, type, path, wide only)
_COLUMNS = (
    ("Phase", "string", ".status.phase", False),
    ("Done", "integer", ".status.progress.done", False),
    ("Total", "integer", ".spec.samples", False),
    ("ETA", "string", ".status.progress.eta", False),
    ("Age", "date", ".metadata.creationTimestamp", False),
    ("Rate", "string", ".status.progress.samplesPerSecond", True),
    ("Workers", "integer", ".status.plan.workers", True),
    ("GPUs", "integer", ".status.plan.gpus", True),
    ("Cluster", "string", ".status.cluster.name", True),
)


def structural(schema: Schema, definitions: Schema) -> Schema:
    """A pydantic JSON schema as Kubernetes takes it: no references, no null, defaults of objects as ``{}``.

    An object's default is ``{}`` so that the API server fills in the defaults inside of it.
    """
    if "$ref" in schema:
        referred = definitions[schema["$ref"].removeprefix("#/$defs/")]
        return structural(referred | {key: value for key, value in schema.items() if key != "$ref"}, definitions)
    if "anyOf" in schema:
        (wanted,) = (option for option in schema["anyOf"] if option.get("type") != "null")
        rest = {key: value for key, value in schema.items() if key not in ("anyOf", "default")}
        return structural(wanted | rest, definitions)

    result = {key: value for key, value in schema.items() if key not in ("title", "const", "additionalProperties")}
    if "const" in schema:
        result["enum"] = [schema["const"]]
    if schema.get("maximum") == 2**63 - 1:
        # The API server keeps a maximum as a double, which rounds this one up and then overflows.
        del result["maximum"]
        result["format"] = "int64"
    if schema.get("type") == "object":
        if "default" in result:
            result["default"] = {}
        if "properties" in schema:
            result["properties"] = {k: structural(v, definitions) for k, v in schema["properties"].items()}
        else:
            result["additionalProperties"] = structural(schema["additionalProperties"], definitions)
    if "items" in schema:
        result["items"] = structural(schema["items"], definitions)
    return result


def crd() -> Schema:
    """The CustomResourceDefinition, as the API takes it."""
    schema = DDPMSampling.model_json_schema(by_alias=True)
    root = structural(schema, schema.pop("$defs"))
    # Of these the API server knows the schema itself, and takes no other.
    root["properties"] |= {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": {"type": "object"},
    }
    root["required"] = ["spec"]
    for validation in root["x-kubernetes-validations"]:
        del validation["fieldPath"]  # a path into metadata is not taken either
    columns = [
        {"name": name, "type": kind, "jsonPath": path} | ({"priority": 1} if wide else {})
        for name, kind, path, wide in _COLUMNS
    ]
    version = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "additionalPrinterColumns": columns,
        "subresources": {"status": {}},
        "schema": {"openAPIV3Schema": root},
    }
    names = {
        "kind": KIND,
        "listKind": f"{KIND}List",
        "plural": PLURAL,
        "singular": SINGULAR,
        "shortNames": [SHORT_NAME],
        "categories": [CATEGORY],
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}", "annotations": {"helm.sh/resource-policy": "keep"}},
        "spec": {"group": GROUP, "names": names, "scope": "Namespaced", "versions": [version]},
    }


def as_yaml() -> str:
    """The file of the chart."""
    return HEADER + yaml.dump(crd(), sort_keys=False, width=110, allow_unicode=True, Dumper=_NoAliases)


class _NoAliases(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:
        return True


if __name__ == "__main__":
    sys.stdout.write(as_yaml())
