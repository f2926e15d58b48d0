"""The URIs a DDPMSampling may name, as texts with a form and as what they mean."""

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
_LONGEST = 1024

_CLEAN_PATH = Avoids("a path has no empty part, no . and no ..", r"[^:]//|/\.{1,2}(?:/|$)")
_BUILTIN = Matches(
    "builtin:// names a checkpoint that is part of the image, such as builtin://mnist",
    r"builtin://[a-z0-9][a-z0-9._-]*",
    "builtin://",
)
_CLAIM_FILE = Matches(
    "pvc:// names a claim and a file on it: pvc://claim/folder/model.safetensors",
    rf"pvc://{SUBDOMAIN}/{_FILE}",
    "pvc://",
)
_CLAIM_FOLDER = Matches(
    "pvc:// names a claim and a folder on it: pvc://claim/folder", rf"pvc://{SUBDOMAIN}/{_FOLDER}", "pvc://"
)
_S3_KEY = Matches(
    "s3:// names a bucket and a key: s3://bucket/folder/model.safetensors", rf"s3://{_BUCKET}/{_FILE}", "s3://"
)
_S3_FOLDER = Matches(
    "s3:// names a bucket and a folder in it: s3://bucket/folder", rf"s3://{_BUCKET}/{_FOLDER}", "s3://"
)
_GS_KEY = Matches(
    "gs:// names a bucket and an object: gs://bucket/folder/model.safetensors", rf"gs://{_BUCKET}/{_FILE}", "gs://"
)
_HTTPS = Matches(
    "https:// names a host and a path: https://host/model.safetensors, with no user or password in it",
    rf"https://{SUBDOMAIN}(?::[0-9]{{1,5}})?/{_CHARACTER}+",
    "https://",
)
# What asks from inside of a cluster reaches more than the one who named the host.
_NO_INNER_HOST = Avoids(
    "https:// names a host of the DNS: no address, not localhost, and no cloud's metadata service",
    r"^https://(?:(?:[^/:]*\.)?(?:[0-9]+|0x[0-9a-f]*|localhost)|(?:metadata\.google|instance-data\.ec2)\.internal"
    r"|metadata|instance-data)[/:]",
)

ModelUri = Annotated[
    str,
    Field(min_length=1, max_length=_LONGEST),
    Matches(
        "a model's uri begins with builtin://, pvc://, s3://, gs:// or https://",
        r"(?:builtin|pvc|s3|gs|https)://(?s:.*)",
    ),
    _BUILTIN,
    _CLAIM_FILE,
    _S3_KEY,
    _GS_KEY,
    _HTTPS,
    _NO_INNER_HOST,
    _CLEAN_PATH,
]
OutputUri = Annotated[
    str,
    Field(min_length=1, max_length=_LONGEST),
    Matches(
        "an output's uri begins with s3:// or pvc://; leave it out for a claim made for you",
        r"(?:s3|pvc)://(?s:.*)",
    ),
    _CLAIM_FOLDER,
    _S3_FOLDER,
    _CLEAN_PATH,
]


@dataclass(frozen=True)
class ClaimPath:
    """A place on a PersistentVolumeClaim.

    Attributes:
        path: below the claim's root, without slashes at its ends.
    """

    claim: str
    path: str


def claim_path(uri: str) -> ClaimPath | None:
    """The claim and path of a ``pvc://`` URI that has passed validation; None for every other scheme."""
    match = re.fullmatch(r"pvc://([^/]+)/(.+?)/?", uri)
    return ClaimPath(match[1], match[2]) if match else None


def builtin_name(uri: str) -> str | None:
    """The name after ``builtin://``; None for every other scheme."""
    return uri.removeprefix("builtin://") if uri.startswith("builtin://") else None
