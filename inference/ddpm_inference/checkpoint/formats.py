"""Formats of weight files: anything that is not safetensors or a ``.pt`` of torch.save is refused by what it is."""

from __future__ import annotations

from ddpm_inference.checkpoint.safetensors_file import LENGTH_BYTES
from ddpm_inference.checkpoint.torch_file import to_safetensors
from ddpm_inference.errors import ModelRejected

ZIP_SIGNATURE = b"PK\x03\x04"
HTML_HINT = "for a repository of the Hugging Face hub give hf://org/name instead of the address of its page"
FOREIGN_FORMATS = {
    b"\x80": ("a bare pickle, which may carry code and is never loaded; save it again with a current torch.save", ""),
    b"version https://git-lfs": ("a Git LFS pointer instead of the file; run git lfs pull", ""),
    b"/annex/objects/": ("a git-annex pointer instead of the file; run git annex get", ""),
    b".git/annex/objects/": ("a git-annex pointer instead of the file; run git annex get", ""),
    b"../.git/annex/objects/": ("a git-annex pointer instead of the file; run git annex get", ""),
    b"../../.git/annex/objects/": ("a git-annex pointer instead of the file; run git annex get", ""),
    b"<": ("an HTML or XML page; download the file itself", HTML_HINT),
    b"\x89HDF": ("an HDF5 file; only PyTorch checkpoints are supported", ""),
    b"\x93NUMPY": ("a NumPy array; only PyTorch checkpoints are supported", ""),
    b"GGUF": ("a GGUF file; only PyTorch checkpoints are supported", ""),
    b"\x1f\x8b": ("a gzip archive; unpack it", ""),
}
"""First bytes -> what the file is, and a hint."""


def as_safetensors(data: bytes) -> bytes:
    """Returns the bytes of a safetensors file, converted if `data` is a ``.pt`` file.

    Raises:
        ModelRejected: if it is neither, or dangerous.
    """
    if not data:
        raise ModelRejected("it is empty", hint="download or copy it again")
    if data.startswith(ZIP_SIGNATURE):
        return to_safetensors(data)
    if data[LENGTH_BYTES : LENGTH_BYTES + 1] == b"{":
        return data
    refuse_foreign(data)
    raise ModelRejected("it is neither a safetensors file nor a .pt file from torch.save")


def refuse_foreign(data: bytes) -> None:
    """Raises ModelRejected if a file begins as one of `FOREIGN_FORMATS`."""
    head = data[:64].lstrip()
    for signature, (description, hint) in FOREIGN_FORMATS.items():
        if head.startswith(signature):
            raise ModelRejected(f"it is {description}", hint=hint)
