"""The types of spec.model.uri and spec.output.uri, and functions that parse such URIs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from ddpm_operator.api.rules import Avoids, Matches

_LABEL = r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?"
SUBDOMAIN = rf"{_LABEL}(?:\.{_LABEL})*"
_BUCKET = r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]"
_CHARACTER = r"[^\s\x00-\x1f\x7f]"
_FILE = rf"{_CHARACTER}*[^/\s\x00-\x1f\x7f]"
_FOLDER = rf"{_CHARACTER}+"
_MAX_LENGTH = 1024

# As `ddpm_inference.checkpoint.hub_uri`, which also checks what a regular expression cannot say; a test compares them.
_REPOSITORY = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?"
_REVISION = r"(?:refs/(?:pr/[0-9]+|convert/[A-Za-z0-9_]+)|[^/\s\x00-\x1f\x7f~^:?#*\[\\]{1,255})"

_CLEAN_PATH = Avoids("a path must not contain empty segments, . or ..", r"[^:]//|/\.{1,2}(?:/|$)")
_BUILTIN = Matches(
    "a builtin:// URI must name a checkpoint in the image, such as builtin://mnist",
    r"builtin://[a-z0-9][a-z0-9._-]*",
    "builtin://",
)
_CLAIM_FILE = Matches(
    "a pvc:// model URI must name a claim and a file or folder: pvc://claim/folder/model.safetensors or "
    "pvc://claim/pipeline",
    rf"pvc://{SUBDOMAIN}/{_FOLDER}",
    "pvc://",
)
_CLAIM_FOLDER = Matches(
    "a pvc:// output URI must name a claim and a folder: pvc://claim/folder", rf"pvc://{SUBDOMAIN}/{_FOLDER}", "pvc://"
)
_S3_KEY = Matches(
    "an s3:// model URI must name a bucket and a key or prefix: s3://bucket/folder/model.safetensors or "
    "s3://bucket/pipeline/",
    rf"s3://{_BUCKET}/{_FOLDER}",
    "s3://",
)
_S3_FOLDER = Matches(
    "an s3:// output URI must name a bucket and a folder: s3://bucket/folder", rf"s3://{_BUCKET}/{_FOLDER}", "s3://"
)
_GS_KEY = Matches(
    "a gs:// model URI must name a bucket and an object: gs://bucket/folder/model.safetensors",
    rf"gs://{_BUCKET}/{_FILE}",
    "gs://",
)
_HTTPS = Matches(
    "an https:// URI must name a host and a path, without embedded credentials: https://host/model.safetensors",
    rf"https://{SUBDOMAIN}(?::[0-9]{{1,5}})?/{_CHARACTER}+",
    "https://",
)
_HUB = Matches(
    "an hf:// URI must name a repository of a model, without a query: hf://org/name, hf://org/name@revision or "
    "hf://org/name@revision/subfolder, where a slash in a revision is written %2F",
    rf"hf://{_REPOSITORY}/{_REPOSITORY}(?:@{_REVISION})?(?:/[^\s\x00-\x1f\x7f?#]*)?",
    "hf://",
)
_NO_OTHER_HUB_KIND = Avoids(
    "an hf:// URI must name the repository of a model, not a data set, a Space, a bucket or a kernel",
    r"^hf://(?:datasets|spaces|buckets|kernels)/",
)
# SSRF protection: a request from inside the cluster reaches hosts that the user who wrote the URI cannot reach.
_NO_INTERNAL_HOST = Avoids(
    "an https:// URI must name a DNS host: IP addresses, localhost and cloud metadata services are not allowed",
    r"^https://(?:(?:[^/:]*\.)?(?:[0-9]+|0x[0-9a-f]*|localhost)|(?:metadata\.google|instance-data\.ec2)\.internal"
    r"|metadata|instance-data)[/:]",
)

ModelUri = Annotated[
    str,
    Field(min_length=1, max_length=_MAX_LENGTH),
    Matches(
        "a model URI must start with builtin://, pvc://, s3://, gs://, https:// or hf://",
        r"(?:builtin|pvc|s3|gs|https|hf)://(?s:.*)",
    ),
    _BUILTIN,
    _CLAIM_FILE,
    _S3_KEY,
    _GS_KEY,
    _HTTPS,
    _NO_INTERNAL_HOST,
    _HUB,
    _NO_OTHER_HUB_KIND,
    _CLEAN_PATH,
]
OutputUri = Annotated[
    str,
    Field(min_length=1, max_length=_MAX_LENGTH),
    Matches(
        "an output URI must start with s3:// or pvc://; omit it to have a claim created",
        r"(?:s3|pvc)://(?s:.*)",
    ),
    _CLAIM_FOLDER,
    _S3_FOLDER,
    _CLEAN_PATH,
]


@dataclass(frozen=True)
class ClaimPath:
    """A path on a PersistentVolumeClaim.

    Attributes:
        path: relative to the root of the volume, without leading or trailing slashes.
    """

    claim: str
    path: str


def claim_path(uri: str) -> ClaimPath | None:
    """Returns the claim and path of a valid ``pvc://`` URI; None for any other scheme."""
    match = re.fullmatch(r"pvc://([^/]+)/(.+?)/?", uri)
    return ClaimPath(match[1], match[2]) if match else None


def builtin_name(uri: str) -> str | None:
    """Returns the checkpoint name of a ``builtin://`` URI; None for any other scheme."""
    return uri.removeprefix("builtin://") if uri.startswith("builtin://") else None
