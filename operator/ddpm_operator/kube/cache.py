"""An in-memory cache of the RayClusters, or pods, of all samplings.

It is fed by watch events, by the lists of `controller.resync` and by the responses to the operator's own requests.
`reconcile` reads clusters and pods from here, and the sampling itself from the API server.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic

from ddpm_operator.kube.objects import ObjectKey, OwnedObject, Versioned


class ObjectCache(Generic[OwnedObject]):
    """The latest known version of every object of one kind, indexed by the sampling that owns it.

    Updates may arrive in any order: an older version never replaces a newer one, and an object that the operator has
    deleted does not reappear from a late event.
    """

    def __init__(self) -> None:
        self._by_uid: dict[str, Versioned[OwnedObject]] = {}
        self._by_owner: dict[ObjectKey, set[str]] = {}
        # Deleted by the operator, while the watch has not reported the deletion yet.
        self._tombstones: dict[str, ObjectKey] = {}
        self._last_removed: dict[ObjectKey, OwnedObject] = {}

    def for_sampling(self, key: ObjectKey) -> tuple[OwnedObject, ...]:
        """Returns the objects of one sampling, in the order of their uids."""
        return tuple(self._by_uid[uid].observed for uid in sorted(self._by_owner.get(key, ())))

    def owners(self) -> set[ObjectKey]:
        """Returns every sampling that owns a cached object."""
        return set(self._by_owner)

    def known_uids(self, namespace: str | None = None) -> frozenset[str]:
        """Returns the uids of cached and of tombstoned objects, in one namespace or in all: input of `apply_list`."""
        owners = {uid: entry.owner for uid, entry in self._by_uid.items()} | self._tombstones
        return frozenset(uid for uid, key in owners.items() if namespace in (None, key.namespace))

    def update(self, entry: Versioned[OwnedObject]) -> bool:
        """Stores a version of an object; returns whether it is newer than the cached one."""
        cached = self._by_uid.get(entry.uid)
        if entry.uid in self._tombstones or (cached and cached.version >= entry.version):
            return False
        self._by_uid[entry.uid] = entry
        self._by_owner.setdefault(entry.owner, set()).add(entry.uid)
        return True

    def remove(self, uid: str, last: Versioned[OwnedObject] | None = None) -> ObjectKey | None:
        """Removes an object whose deletion the watch has reported; returns its owner if it was cached.

        Args:
            last: the final state of the object, if `last_removed` should return it.
        """
        self._tombstones.pop(uid, None)
        key = self._drop(uid)
        if key and last:
            self._last_removed[key] = last.observed
        return key

    def last_removed(self, key: ObjectKey) -> OwnedObject | None:
        """Returns the final state of the sampling's last object that was removed with one."""
        return self._last_removed.get(key)

    def forget_last_removed(self, key: ObjectKey) -> None:
        """Frees what `last_removed` would return."""
        self._last_removed.pop(key, None)

    def mark_deleted(self, uid: str) -> None:
        """Removes an object that the operator has deleted, and ignores late events until the watch reports its end."""
        key = self._drop(uid)
        if key:
            self._tombstones[uid] = key

    def apply_list(self, entries: Iterable[Versioned[OwnedObject]], known_before: frozenset[str]) -> set[ObjectKey]:
        """Applies a complete list of one namespace, or of all, to make up for events that the watch has missed.

        Args:
            known_before: `known_uids` of the same namespace, taken before the list request, less the objects that
                the list contains but could not be decoded. What is known and not listed is removed.

        Returns:
            the owners of added, changed and removed objects.
        """
        listed = {entry.uid: entry for entry in entries}
        changed = {entry.owner for entry in listed.values() if self.update(entry)}
        missing = known_before - listed.keys()
        removed_from = {self._drop(uid) for uid in missing}
        for uid in missing:
            self._tombstones.pop(uid, None)
        return changed | {key for key in removed_from if key}

    def _drop(self, uid: str) -> ObjectKey | None:
        entry = self._by_uid.pop(uid, None)
        if entry is None:
            return None
        uids = self._by_owner[entry.owner]
        uids.discard(uid)
        if not uids:
            del self._by_owner[entry.owner]
        return entry.owner
