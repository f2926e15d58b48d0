"""What the watches have told of clusters and pods, and what the operator has itself done to them since."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic

from ddpm_operator.kube.objects import Fact, ObjectKey, Versioned


class ObjectCache(Generic[Fact]):
    """The last sight of every object of one kind.

    Sights come from watches, from lists and from answers to the operator's own requests, in any order: an older
    one never takes the place of a newer one, and what was deleted does not come back.
    """

    def __init__(self) -> None:
        self._by_uid: dict[str, Versioned[Fact]] = {}
        self._by_owner: dict[ObjectKey, set[str]] = {}
        self._deleted: dict[str, ObjectKey] = {}
        self._departed: dict[ObjectKey, Fact] = {}

    def of(self, key: ObjectKey) -> tuple[Fact, ...]:
        """Those of one sampling, the oldest sight of them first."""
        return tuple(self._by_uid[uid].fact for uid in sorted(self._by_owner.get(key, ())))

    def owners(self) -> set[ObjectKey]:
        """Every sampling that something was seen of."""
        return set(self._by_owner)

    def known(self, namespace: str | None = None) -> frozenset[str]:
        """The uids of what is there, or was deleted, in a namespace or in all: a list tells their end."""
        owners = {uid: sight.of for uid, sight in self._by_uid.items()} | self._deleted
        return frozenset(uid for uid, key in owners.items() if namespace in (None, key.namespace))

    def saw(self, sight: Versioned[Fact]) -> bool:
        """Takes down a sight; returns whether it was news."""
        known = self._by_uid.get(sight.uid)
        if sight.uid in self._deleted or (known and known.version >= sight.version):
            return False
        self._by_uid[sight.uid] = sight
        self._by_owner.setdefault(sight.of, set()).add(sight.uid)
        return True

    def gone(self, uid: str, last: Versioned[Fact] | None = None) -> ObjectKey | None:
        """The watch has told the end of an object; returns whose it was, if it was known still.

        Args:
            last: the object as it was then, if that is to be remembered.
        """
        self._deleted.pop(uid, None)
        key = self._remove(uid)
        if key and last:
            self._departed[key] = last.fact
        return key

    def departed(self, key: ObjectKey) -> Fact | None:
        """The last one of a sampling that is gone and was to be remembered."""
        return self._departed.get(key)

    def forget(self, key: ObjectKey) -> None:
        """Nobody will ask any more what of a sampling is gone."""
        self._departed.pop(key, None)

    def deleted(self, uid: str) -> None:
        """The operator has deleted it, and it is gone; sights from before may come until the watch tells so."""
        key = self._remove(uid)
        if key:
            self._deleted[uid] = key

    def listed(self, sights: Iterable[Versioned[Fact]], before: frozenset[str]) -> set[ObjectKey]:
        """Takes down a list of all there is in a namespace, or in all, for what a watch has missed.

        Args:
            before: as `known` told of the same before the list was asked for; less what the list says nothing of.

        Returns:
            whose objects came or went with it.
        """
        found = {sight.uid: sight for sight in sights}
        changed = {sight.of for sight in found.values() if self.saw(sight)}
        missing = before - found.keys()
        lost = {self._remove(uid) for uid in missing}
        for uid in missing:
            self._deleted.pop(uid, None)
        return changed | {key for key in lost if key}

    def _remove(self, uid: str) -> ObjectKey | None:
        sight = self._by_uid.pop(uid, None)
        if sight is None:
            return None
        uids = self._by_owner[sight.of]
        uids.discard(uid)
        if not uids:
            del self._by_owner[sight.of]
        return sight.of
