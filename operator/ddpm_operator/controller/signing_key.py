"""The key that all tokens are derived from. The operator creates its Secret at the first start."""

from __future__ import annotations

import base64
import binascii
import secrets
from http import HTTPStatus

from ddpm_operator.kube import paths
from ddpm_operator.kube.client import ApiError, KubeApi
from ddpm_operator.kube.responses import Document
from ddpm_operator.manifests.naming import MANAGED_BY, MANAGER

_KEY_BYTES = 32
_FIELD = "key"


class SigningKeyInvalid(Exception):
    """The Secret exists but does not hold a valid key."""


async def signing_key(api: KubeApi, namespace: str, name: str) -> bytes:
    """Reads the key, and creates it first if there is none.

    Args:
        namespace: the operator's own namespace.
        name: name of the Secret.

    Returns:
        at least 32 bytes.

    Raises:
        ApiError: if the Secret can be neither read nor created.
        SigningKeyInvalid: if the Secret does not hold a valid key.
    """
    try:
        return await _read(api, namespace, name)
    except ApiError as error:
        if error.status != HTTPStatus.NOT_FOUND:
            raise
    manifest: Document = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace, "labels": {MANAGED_BY: MANAGER}},
        "immutable": True,
        "data": {_FIELD: base64.b64encode(secrets.token_bytes(_KEY_BYTES)).decode()},
    }
    try:
        await api.create(paths.secrets(namespace), manifest)
    except ApiError as error:
        if error.status != HTTPStatus.CONFLICT:
            raise
    return await _read(api, namespace, name)


async def _read(api: KubeApi, namespace: str, name: str) -> bytes:
    data = (await api.get(f"{paths.secrets(namespace)}/{name}")).get("data")
    value = data.get(_FIELD) if isinstance(data, dict) else None
    try:
        key = base64.b64decode(str(value), validate=True)
    except binascii.Error:
        key = b""
    if len(key) < _KEY_BYTES:
        raise SigningKeyInvalid(
            f"the Secret {name} in namespace {namespace} has no {_FIELD!r} of {_KEY_BYTES} bytes: delete it, and "
            "restart the operator, which creates a new one; running samplings then start a new attempt"
        )
    return key
