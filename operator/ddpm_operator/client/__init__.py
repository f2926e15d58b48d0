"""DDPMSamplings from Python, with the rights of the person who runs it.

>>> client = Client.open()
>>> client.submit({"apiVersion": "ddpm-ray.io/v1alpha1", "kind": "DDPMSampling", "metadata": {"name": "digits"},
...                "spec": {"model": {"uri": "builtin://mnist"}, "samples": 100}})
>>> for digits in client.watch("digits"):
...     print(digits.status)
>>> client.fetch("digits", Path("digits"))
"""

from ddpm_operator.client.checkpoint_file import CheckpointFile, checkpoint_file
from ddpm_operator.client.client import Client, Submitted
from ddpm_operator.client.errors import (
    ClientFault,
    Conflict,
    Damaged,
    NotAllowed,
    NotFound,
    Refused,
    SamplingFailed,
    Unreachable,
)
from ddpm_operator.client.fetch import Fetched, FetchedFile
from ddpm_operator.client.progress_callback import Told, nobody
from ddpm_operator.client.uploader import model_uri

__all__ = [
    "CheckpointFile",
    "Client",
    "ClientFault",
    "Conflict",
    "Damaged",
    "Fetched",
    "FetchedFile",
    "NotAllowed",
    "NotFound",
    "Refused",
    "SamplingFailed",
    "Submitted",
    "Told",
    "Unreachable",
    "checkpoint_file",
    "model_uri",
    "nobody",
]
