"""What one part of the audit has looked at, and what it tells of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Look:
    """One kind of package, held against one database.

    Attributes:
        what: the packages.
        number: how many were looked up.
        database: what was asked, and of when it is.
        holes: the packages that have known ones, a line each.
        unseen: why some or all were not looked up; "" if all were.
        ships: whether users get these packages; otherwise only tests run them.
    """

    what: str
    number: int = 0
    database: str = ""
    holes: tuple[str, ...] = ()
    unseen: str = ""
    ships: bool = True

    @property
    def fails(self) -> bool:
        """Whether users have a hole, or may have one that nobody has looked for."""
        return self.ships and bool(self.holes or self.unseen)

    def __str__(self) -> str:
        found = f": {self.number} looked up in {self.database}, with known holes: {len(self.holes)}"
        lines = [f"{self.what}{found if self.number else ''}"]
        lines += [f"  HOLE {hole}" for hole in self.holes]
        lines += [f"  NOT LOOKED UP: {self.unseen}"] if self.unseen else []
        return "\n".join(lines)
