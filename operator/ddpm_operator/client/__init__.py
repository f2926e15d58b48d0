"""Python client for DDPMSamplings: submits, watches, fetches and deletes them with the rights of the calling user.

`kubectl ddpm` and the chart's `helm test` are built on it.

>>> client = Client.open()
>>> client.submit({"apiVersion": "ddpm-ray.io/v1alpha1", "kind": "DDPMSampling", "metadata": {"name": "digits"},
...                "spec": {"model": {"uri": "builtin://mnist"}, "samples": 100}})
>>> for digits in client.watch("digits"):
...     print(digits.status)
>>> client.fetch("digits", Path("digits"))
"""

from ddpm_operator.client.checkpoint_file import CheckpointFile
from ddpm_operator.client.client import Client, Submitted
from ddpm_operator.client.errors import (
    ClientError,
    Conflict,
    Damaged,
    NotAllowed,
    NotFound,
    RequestRejected,
    SamplingFailed,
    Unreachable,
)
from ddpm_operator.client.fetch import Fetched, FetchedFile
from ddpm_operator.client.model_folder import LocalModel, ModelFolder, local_model
from ddpm_operator.client.progress_callback import ProgressCallback, ignore_progress
from ddpm_operator.client.upload import model_uri
from ddpm_operator.client.verify import DamagedFile, Verified

__all__ = [
    "CheckpointFile",
    "Client",
    "ClientError",
    "Conflict",
    "Damaged",
    "DamagedFile",
    "Fetched",
    "FetchedFile",
    "LocalModel",
    "ModelFolder",
    "NotAllowed",
    "NotFound",
    "ProgressCallback",
    "RequestRejected",
    "SamplingFailed",
    "Submitted",
    "Unreachable",
    "Verified",
    "ignore_progress",
    "local_model",
    "model_uri",
]
