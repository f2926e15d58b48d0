"""What the watches have told of clusters and pods, and what the operator has itself done to them since."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic

from ddpm_operator.facts import Fact, Key, Sight


class Seen(Generic[Fact]):
    """The last sight of every object of one kind.

    Sights come from watches, from lists and from answers to the operator's own requests, in any order: an older
    one never takes the place of a newer one, and what was deleted does not come back.
    """

    def __init__(self) -> None:
        self._by_uid: dict[str, Sight[Fact]] = {}
        self._by_owner: dict[Key, set[str]] = {}
        self._deleted: set[str] = set()
        self._departed: dict[Key, Fact] = {}

    def of(self, key: Key) -> tuple[Fact, ...]:
        """Those of one sampling, the oldest sight of them first."""
        return tuple(self._by_uid[uid].fact for uid in sorted(self._by_owner.get(key, ())))

    def owners(self) -> set[Key]:
        """Every sampling that something was seen of."""
        return set(self._by_owner)

    def uids(self) -> frozenset[str]:
        """All that is there."""
        return frozenset(self._by_uid)

    def saw(self, sight: Sight[Fact]) -> bool:
        """Takes down a sight; returns whether it was news."""
        known = self._by_uid.get(sight.uid)
        if sight.uid in self._deleted or (known and known.version >= sight.version):
            return False
        self._by_uid[sight.uid] = sight
        self._by_owner.setdefault(sight.of, set()).add(sight.uid)
        return True

    def gone(self, uid: str, last: Sight[Fact] | None = None) -> Key | None:
        """The watch has told the end of an object; returns whose it was, if it was known still.

        Args:
            last: the object as it was then, if that is to be remembered.
        """
        self._deleted.discard(uid)
        if last:
            self._departed[last.of] = last.fact
        return self._remove(uid)

    def departed(self, key: Key) -> Fact | None:
        """The last one of a sampling that is gone and was to be remembered."""
        return self._departed.get(key)

    def forget(self, key: Key) -> None:
        """Nobody will ask any more what of a sampling is gone."""
        self._departed.pop(key, None)

    def deleted(self, uid: str) -> None:
        """The operator has deleted it; sights from before that may still come, until the watch tells its end."""
        if self._remove(uid):
            self._deleted.add(uid)

    def listed(self, sights: Iterable[Sight[Fact]], before: frozenset[str]) -> set[Key]:
        """Takes down a list of all there is, for the case that a watch has missed something.

        Args:
            before: `uids` as they were before the list was asked for.

        Returns:
            whose objects came or went with it.
        """
        found = {sight.uid: sight for sight in sights}
        changed = {sight.of for sight in found.values() if self.saw(sight)}
        lost = {self._remove(uid) for uid in before - found.keys()}
        self._deleted &= found.keys()
        return changed | {key for key in lost if key}

    def _remove(self, uid: str) -> Key | None:
        sight = self._by_uid.pop(uid, None)
        if sight is None:
            return None
        uids = self._by_owner[sight.of]
        uids.discard(uid)
        if not uids:
            del self._by_owner[sight.of]
        return sight.of
