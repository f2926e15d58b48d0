"""Storage of results: shards, the manifest that accounts for them, and what a run needs to resume."""

from ddpm_inference.store.integrity import DamagedFile, Inspection
from ddpm_inference.store.manifest import FileRecord, Manifest, Selection, ShardRecord, select
from ddpm_inference.store.store import Scan, Store

__all__ = ["DamagedFile", "FileRecord", "Inspection", "Manifest", "Scan", "Selection", "ShardRecord", "Store", "select"]
