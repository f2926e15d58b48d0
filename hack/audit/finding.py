"""The result of auditing one set of packages."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One set of packages, looked up in one vulnerability database.

    Attributes:
        packages: names the set.
        checked: how many packages were looked up.
        database: the database and its date.
        vulnerabilities: a line for each vulnerable package.
        not_checked: why some or all packages were not looked up; "" if all were.
        ships: whether users get these packages; otherwise only tests run them.
    """

    packages: str
    checked: int = 0
    database: str = ""
    vulnerabilities: tuple[str, ...] = ()
    not_checked: str = ""
    ships: bool = True

    @property
    def fails(self) -> bool:
        """Whether packages that users get are vulnerable or were not looked up."""
        return self.ships and bool(self.vulnerabilities or self.not_checked)

    def __str__(self) -> str:
        summary = f": {self.checked} looked up in {self.database}, vulnerable: {len(self.vulnerabilities)}"
        lines = [f"{self.packages}{summary if self.checked else ''}"]
        lines += [f"  VULNERABLE {vulnerability}" for vulnerability in self.vulnerabilities]
        lines += [f"  NOT CHECKED: {self.not_checked}"] if self.not_checked else []
        return "\n".join(lines)
