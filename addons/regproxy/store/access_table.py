"""What is known of who may read what, in the index: three tables beside diskcache's.

Bindings name a content by the 32 or 64 bytes of its hash and a repository by a number: about 45 bytes for each, so a
million contents take as much as 50 layers. A binding goes with its content. Proofs name a client by its keyed hash.
Used by the index thread.
"""

import contextlib
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from regproxy.oci.digest import Digest
from regproxy.oci.names import Registry
from regproxy.policy.access import CLOSED, LONG_AGO_S, NEVER_S, Openness, Repository, set_back
from regproxy.store.records import digest_of_key

_TABLES = """
CREATE TABLE IF NOT EXISTS Repository (id INTEGER PRIMARY KEY, registry TEXT NOT NULL, name TEXT NOT NULL,
    public_at_s REAL NOT NULL DEFAULT 0, shared_at_s REAL NOT NULL DEFAULT 0, UNIQUE (registry, name));
CREATE TABLE IF NOT EXISTS Binding (content BLOB NOT NULL, repository INTEGER NOT NULL, given INTEGER NOT NULL,
    PRIMARY KEY (content, repository)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS Proof (identity BLOB NOT NULL, repository INTEGER NOT NULL, at_s REAL NOT NULL,
    PRIMARY KEY (identity, repository)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS Challenge (registry TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID
"""

type _Sql = Callable[..., sqlite3.Cursor]


@dataclass(slots=True)
class AccessChanges:
    """What has been learnt and is not written yet; the latest of each."""

    repositories: dict[Repository, Openness] = field(default_factory=dict)
    bindings: dict[tuple[Repository, Digest], int] = field(default_factory=dict)
    proofs: dict[tuple[Repository, str], float] = field(default_factory=dict)
    """By repository and hexadecimal identity; `NEVER_S` removes one."""
    challenges: dict[Registry, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.repositories or self.bindings or self.proofs or self.challenges)

    def set_back(self, by_s: float) -> "AccessChanges":
        """Return them by a clock that was set back by so many seconds."""
        return AccessChanges(
            {repository: openness.set_back(by_s) for repository, openness in self.repositories.items()},
            dict(self.bindings),
            {proof: set_back(at_s, by_s) for proof, at_s in self.proofs.items()},
            dict(self.challenges),
        )


class AccessTable:
    """The statements. `sql` runs one in the index's connection."""

    def __init__(self, sql: _Sql) -> None:
        self._sql = sql
        for statement in _TABLES.split(";"):
            sql(statement)

    def openness(self, repository: Repository) -> Openness:
        """Return how open a repository is."""
        row = self._one(
            "SELECT public_at_s, shared_at_s FROM Repository WHERE registry = ? AND name = ?", *_names(repository)
        )
        return CLOSED if row is None else Openness(*row)

    def given(self, repository: Repository, digest: Digest) -> int:
        """Return to whom a repository gave a content (`Given`)."""
        row = self._one(
            "SELECT given FROM Binding JOIN Repository ON id = repository"
            " WHERE content = ? AND registry = ? AND name = ?",
            _content(digest),
            *_names(repository),
        )
        return 0 if row is None else int(row[0])

    def proven_at_s(self, repository: Repository, identity: str) -> float:
        """Return when a client's own login was last answered, 0 for never."""
        row = self._one(
            "SELECT at_s FROM Proof JOIN Repository ON id = repository"
            " WHERE identity = ? AND registry = ? AND name = ?",
            bytes.fromhex(identity),
            *_names(repository),
        )
        return 0.0 if row is None else float(row[0])

    def logins(self, repository: Repository, since_s: float) -> int:
        """Return how many logins a registry let read a repository since that Unix time."""
        row = self._one(
            "SELECT count(*) FROM Proof JOIN Repository ON id = repository"
            " WHERE registry = ? AND name = ? AND at_s > ?",
            *_names(repository),
            since_s,
        )
        return 0 if row is None else int(row[0])

    def holders(self, digest: Digest) -> list[tuple[Repository, int]]:
        """Return the repositories that are known to have a content."""
        rows = self._sql(
            "SELECT registry, name, given FROM Binding JOIN Repository ON id = repository WHERE content = ?",
            (_content(digest),),
        ).fetchall()
        return [(Repository(Registry.parse(registry), name), given) for registry, name, given in rows]

    def challenge(self, registry: Registry) -> str | None:
        """Return what a registry asked for when it last refused."""
        row = self._one("SELECT value FROM Challenge WHERE registry = ?", str(registry))
        return None if row is None else str(row[0])

    def write(self, changes: AccessChanges) -> None:
        """Write what was learnt; the caller makes it one transaction."""
        numbers = {
            repository: self._number(repository)
            for repository in {
                *changes.repositories,
                *(repository for repository, _ in changes.bindings),
                *(repository for repository, _ in changes.proofs),
            }
        }
        for repository, openness in changes.repositories.items():
            self._sql(
                "UPDATE Repository SET public_at_s = ?, shared_at_s = ? WHERE id = ?",
                (openness.public_at_s, openness.shared_at_s, numbers[repository]),
            )
        for (repository, digest), given in changes.bindings.items():
            self._sql("REPLACE INTO Binding VALUES (?, ?, ?)", (_content(digest), numbers[repository], given))
        self._write_proofs(changes.proofs, numbers)
        for registry, value in changes.challenges.items():
            self._sql("REPLACE INTO Challenge VALUES (?, ?)", (str(registry), value))

    def forget_content(self, key: str) -> None:
        """Remove the bindings of content that goes; any other key is passed over."""
        with contextlib.suppress(ValueError):
            self._sql("DELETE FROM Binding WHERE content = ?", (_content(digest_of_key(key)),))

    def tidy(self, oldest_proof_s: float) -> None:
        """Remove proofs from before this Unix time, bindings of what is not stored, and repositories of nothing."""
        self._sql("DELETE FROM Proof WHERE at_s < ?", (oldest_proof_s,))
        self._sql(
            "DELETE FROM Binding WHERE NOT EXISTS (SELECT 1 FROM Cache WHERE raw = 1 AND key ="
            " 'content:' || CASE length(content) WHEN 32 THEN 'sha256:' ELSE 'sha512:' END || lower(hex(content)))"
        )
        self._sql(
            "DELETE FROM Repository WHERE id NOT IN (SELECT repository FROM Binding)"
            " AND id NOT IN (SELECT repository FROM Proof)"
        )

    def shift_back(self, by_s: float) -> None:
        """Move all times back by so many seconds: the clock was, and nothing is to count longer for it."""
        self._sql("UPDATE Proof SET at_s = max(at_s - ?, ?)", (by_s, LONG_AGO_S))
        for column in ("public_at_s", "shared_at_s"):
            self._sql(
                f"UPDATE Repository SET {column} = max({column} - ?, ?) WHERE {column} != ?",  # noqa: S608 - our own
                (by_s, LONG_AGO_S, NEVER_S),
            )

    def forget_the_future(self, now_s: float) -> None:
        """Let no answer of a clock that was ahead count when its time comes; that there was one is not forgotten."""
        self._sql("DELETE FROM Proof WHERE at_s > ?", (now_s,))
        for column in ("public_at_s", "shared_at_s"):
            self._sql(f"UPDATE Repository SET {column} = ? WHERE {column} > ?", (LONG_AGO_S, now_s))  # noqa: S608

    def _write_proofs(self, proofs: Mapping[tuple[Repository, str], float], numbers: Mapping[Repository, int]) -> None:
        for (repository, identity), at_s in proofs.items():
            key = bytes.fromhex(identity), numbers[repository]
            if at_s:
                self._sql("REPLACE INTO Proof VALUES (?, ?, ?)", (*key, at_s))
            else:
                self._sql("DELETE FROM Proof WHERE identity = ? AND repository = ?", key)

    def _number(self, repository: Repository) -> int:
        self._sql("INSERT OR IGNORE INTO Repository (registry, name) VALUES (?, ?)", _names(repository))
        row = self._one("SELECT id FROM Repository WHERE registry = ? AND name = ?", *_names(repository))
        assert row is not None
        return int(row[0])

    def _one(self, statement: str, *values: object) -> tuple[Any, ...] | None:
        row: tuple[Any, ...] | None = self._sql(statement, values).fetchone()
        return row


def _names(repository: Repository) -> tuple[str, str]:
    return str(repository.registry), repository.name


def _content(digest: Digest) -> bytes:
    return bytes.fromhex(digest.hex)
