"""The URI of a model on the Hugging Face hub: ``hf://org/name[@revision][/subfolder]``.

As in huggingface_hub's ``HfFileSystem``: a slash in a revision is written ``%2F``, and ``refs/pr/N`` needs no quoting.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote

from ddpm_inference.errors import InvalidSpec

SCHEME = "hf"
FORM = "hf://org/name[@revision][/subfolder]"
COMMIT = re.compile("[0-9a-f]{40}")
_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?")
_SPECIAL = re.compile(r"refs/(?:pr/[0-9]+|convert/[A-Za-z0-9_]+)(?=/|$)")
_OTHER_KINDS = {"datasets": "a data set", "spaces": "a Space", "buckets": "a bucket", "kernels": "a kernel"}


@dataclass(frozen=True)
class HubUri:
    """A parsed URI.

    Attributes:
        revision: a branch, a tag, a commit or ``refs/pr/N``; None for the default branch.
        path: of a folder or file in the repository; "" for the whole.
    """

    repo_id: str
    revision: str | None
    path: str

    def at(self, commit: str) -> str:
        """Returns the URI of the same path at a commit."""
        return f"{SCHEME}://{self.repo_id}@{commit}" + (f"/{self.path}" if self.path else "")

    def __str__(self) -> str:
        revision = ""
        if self.revision is not None:
            revision = "@" + (self.revision if _SPECIAL.fullmatch(self.revision) else quote(self.revision, safe=""))
        return f"{SCHEME}://{self.repo_id}{revision}" + (f"/{self.path}" if self.path else "")


def parse(uri: str) -> HubUri:
    """Parses ``hf://org/name[@revision][/subfolder]``.

    Raises:
        InvalidSpec: if it is of another form.
    """
    rest = uri.partition("://")[2]
    organisation, _, rest = rest.partition("/")
    if organisation in _OTHER_KINDS:
        raise InvalidSpec(f"{uri} is the address of {_OTHER_KINDS[organisation]}, not of a model", hint=f"use {FORM}")
    # Only what follows the repository's name can be a revision: a folder may have an @ in its name.
    name, slash, path = rest.partition("/")
    name, at, revision = name.partition("@")
    if at and (special := _SPECIAL.match(revision + slash + path)):
        path = (revision + slash + path)[special.end() :].lstrip("/")
        revision = special[0]
    revision = unquote(revision)
    path = path.strip("/")
    if not _NAME.fullmatch(organisation) or not _NAME.fullmatch(name):
        raise InvalidSpec(f"{uri} names no repository", hint=f"use {FORM}")
    if at and not _is_revision(revision):
        raise InvalidSpec(f"{uri} has no valid revision after the @", hint="a branch, a tag, a commit or refs/pr/N")
    if any(part in ("", ".", "..") for part in path.split("/")) and path:
        raise InvalidSpec(f"{uri} has no valid subfolder", hint=f"use {FORM}")
    if "?" in uri or "#" in uri:
        raise InvalidSpec(f"{uri} has a query or a fragment", hint=f"use {FORM}")
    return HubUri(f"{organisation}/{name}", revision if at else None, path)


def _is_revision(revision: str) -> bool:
    """Whether it may name a revision, by the rules of git that keep it a relative path."""
    return (
        bool(revision)
        and len(revision) <= 255
        and revision.isprintable()
        and not any(part in ("", ".", "..") for part in revision.split("/"))
        and not set(revision) & set(" ~^:?*[\\")
    )
