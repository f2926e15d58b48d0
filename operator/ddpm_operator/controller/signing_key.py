"""The operator's own key, from which all tokens follow: a Secret that it makes for itself at its first start."""

from __future__ import annotations

import base64
import binascii
import secrets
from http import HTTPStatus

from ddpm_operator.kube import paths
from ddpm_operator.kube.client import ApiError, KubeApi
from ddpm_operator.kube.responses import Document
from ddpm_operator.manifests.naming import MANAGED_BY, MANAGER

_BYTES = 32
_FIELD = "key"


class SigningKeyInvalid(Exception):
    """There is a Secret of the key's name, and no key in it."""


async def signing_key(api: KubeApi, namespace: str, name: str) -> bytes:
    """Reads the key, or makes it.

    Args:
        namespace: the operator's own.
        name: of the Secret.

    Raises:
        ApiError: if it may not be read or made.
        KeyUnusable: if what is there is no key.
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
        "data": {_FIELD: base64.b64encode(secrets.token_bytes(_BYTES)).decode()},
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
    if len(key) < _BYTES:
        raise SigningKeyInvalid(
            f"the Secret {name} in namespace {namespace} holds no {_FIELD!r} of {_BYTES} bytes: delete it, and "
            "restart the operator, which makes a new one; samplings that run now start another attempt"
        )
    return key
