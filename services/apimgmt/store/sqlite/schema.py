"""The database file: how it is opened, and the steps that bring an older schema up to date.

Source of the pragmas: SQLite documentation, "PRAGMA Statements" and "Write-Ahead Logging" (3.40).
"""

import functools
import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, ParamSpec, TypeVar

from services.apimgmt.store.api import StoreError

APPLICATION_ID = 0x50534B31
"""`PRAGMA application_id` of our files ("PSK1"): another program's database is refused."""

BUSY_S = 5.0
"""How long a process waits for the lock that another holds, seconds."""

OLDEST_SQLITE = (3, 35, 0)
"""Multi-row upserts, `RETURNING` (SQLite release notes)."""

MAX_WAL_BYTES = 64 * 1024 * 1024
"""The log is cut to this size when it begins anew (`PRAGMA journal_size_limit`)."""

Step = Sequence[str]

STEPS: Sequence[Step] = (
    (
        # documents, their change feed, audit
        "CREATE TABLE state (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID",
        "INSERT INTO state VALUES ('revision', 0), ('feed_floor', 0)",
        """CREATE TABLE documents (
            kind TEXT NOT NULL, organization TEXT NOT NULL, name TEXT NOT NULL, body TEXT NOT NULL,
            revision INTEGER NOT NULL, declared INTEGER NOT NULL, updated INTEGER NOT NULL,
            PRIMARY KEY (kind, organization, name)) WITHOUT ROWID""",
        # key: the id of a key that changed, or empty for documents
        """CREATE TABLE changes (
            sequence INTEGER PRIMARY KEY AUTOINCREMENT, revision INTEGER NOT NULL, key TEXT NOT NULL)""",
        "CREATE INDEX changes_by_revision ON changes (revision, key)",
        """CREATE TABLE audit (
            sequence INTEGER PRIMARY KEY AUTOINCREMENT, organization TEXT NOT NULL, entry TEXT NOT NULL)""",
        "CREATE INDEX audit_by_organization ON audit (organization, sequence)",
        """CREATE TABLE keys (
            id TEXT PRIMARY KEY, organization TEXT NOT NULL, app TEXT NOT NULL, developer TEXT NOT NULL,
            purpose TEXT NOT NULL, last_used INTEGER, record TEXT NOT NULL) WITHOUT ROWID""",
        "CREATE INDEX keys_by_organization ON keys (organization, id)",
        "CREATE INDEX keys_by_app ON keys (organization, app, id)",
        "CREATE INDEX keys_by_developer ON keys (organization, developer, id)",
        # requests: counters go by numbers, given when they are first seen, so that those of one request are neighbours
        # and dirty few pages; `used` is what was used and what is held. `forgotten` counts when numbers were taken away
        "INSERT INTO state VALUES ('forgotten', 0)",
        "CREATE TABLE names (number INTEGER PRIMARY KEY AUTOINCREMENT, counter TEXT NOT NULL UNIQUE)",
        # place: number * 2**32 + slot (`counters.bounds`)
        "CREATE TABLE counters (place INTEGER PRIMARY KEY, used INTEGER NOT NULL, expires INTEGER NOT NULL)",
        "CREATE INDEX counters_by_expiry ON counters (expires) WHERE expires > 0",
        "CREATE TABLE paces (counter TEXT PRIMARY KEY, arrival_us REAL NOT NULL) WITHOUT ROWID",
        # one row holds what one transaction reserved for an owner (`reservations.py`)
        "CREATE TABLE reservations (number INTEGER PRIMARY KEY, owner TEXT NOT NULL, body BLOB NOT NULL)",
        "CREATE TABLE leases (owner TEXT PRIMARY KEY, until INTEGER NOT NULL) WITHOUT ROWID",
        # ledger: a pruned record is NULL if it is the last, so that a sequence is never used twice
        """CREATE TABLE ledger (
            sequence INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, time INTEGER NOT NULL, record BLOB)""",
        """CREATE TABLE dimensions (
            id INTEGER PRIMARY KEY, organization TEXT NOT NULL, team TEXT NOT NULL, user TEXT NOT NULL,
            app TEXT NOT NULL, key TEXT NOT NULL, product TEXT NOT NULL, model TEXT NOT NULL, agent TEXT NOT NULL,
            outcome TEXT NOT NULL, UNIQUE (organization, team, user, app, key, product, model, agent, outcome))""",
        """CREATE TABLE rollups (
            dimensions INTEGER NOT NULL, hour INTEGER NOT NULL, requests INTEGER NOT NULL,
            promptTokens INTEGER NOT NULL, cachedTokens INTEGER NOT NULL, completionTokens INTEGER NOT NULL,
            reasoningTokens INTEGER NOT NULL, costMicros INTEGER NOT NULL, latencyMs INTEGER NOT NULL,
            estimated INTEGER NOT NULL, PRIMARY KEY (dimensions, hour)) WITHOUT ROWID""",
        "CREATE TABLE notes (name TEXT PRIMARY KEY, version INTEGER NOT NULL, value BLOB NOT NULL) WITHOUT ROWID",
    ),
)
"""Step n makes schema version n + 1 from n. Steps that were released never change; new ones are added at the end."""


P = ParamSpec("P")
T = TypeVar("T")


def patient(opening: Callable[P, T]) -> Callable[P, T]:
    """Repeat what SQLite refuses as locked without waiting: a file that is just becoming WAL, or being closed by its
    last user ("Write-Ahead Logging", section "Sometimes Queries Return SQLITE_BUSY In WAL Mode")."""

    @functools.wraps(opening)
    def repeat(*args: P.args, **kwargs: P.kwargs) -> T:
        deadline = time.monotonic() + BUSY_S
        while True:
            try:
                return opening(*args, **kwargs)
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
            time.sleep(0.005)

    return repeat


def make_file(path: Path) -> None:
    """Make the folder (0700) and the file (0600) if they are missing; SQLite gives its side files the same mode."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise StoreError(
            f"store {path}: expected a file that can be read and written ({error.strerror}); "
            "name another path in `store.path`, or let this user write there"
        ) from None


@patient
def connect(path: Path, synchronous: Literal["normal", "full"], *, wait_s: float = BUSY_S) -> sqlite3.Connection:
    """Open one connection in autocommit mode; a transaction is what `BEGIN IMMEDIATE` begins.

    Args:
        path: The file, which exists.
        synchronous: When the system is told to write through.
        wait_s: How long SQLite waits (asleep) for a lock before it says busy.
    """
    connection = sqlite3.connect(
        path, timeout=wait_s, isolation_level=None, check_same_thread=False, cached_statements=256
    )
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    connection.execute(f"PRAGMA journal_size_limit = {MAX_WAL_BYTES}")
    connection.execute("PRAGMA cache_size = -16384")  # KiB
    connection.execute("PRAGMA secure_delete = OFF")  # what is deleted is not overwritten: it stays in free pages
    return connection


@patient
def migrate(connection: sqlite3.Connection, path: Path, steps: Sequence[Step] = STEPS) -> None:
    """Bring the database up to date: each step in a transaction of its own, whoever else does the same.

    Raises:
        StoreError: The file is none of ours, or was written by a newer release.
    """
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        wanted = ".".join(map(str, OLDEST_SQLITE))
        raise StoreError(f"SQLite {sqlite3.sqlite_version} is too old; run with SQLite {wanted} or newer")
    _check_owner(connection, path)
    connection.execute("PRAGMA journal_mode = WAL")
    while _step(connection, path, steps):
        pass


def _check_owner(connection: sqlite3.Connection, path: Path) -> None:
    # tables first: whoever makes them in between sets the id in the same transaction
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    if application != APPLICATION_ID and tables:
        raise StoreError(f"store {path}: this is another program's database; name a new file in `store.path`")


def _step(connection: sqlite3.Connection, path: Path, steps: Sequence[Step]) -> bool:
    """Do one step; tell whether there was one to do."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > len(steps):
            raise StoreError(
                f"store {path}: its schema has version {version}, this release knows up to {len(steps)}; "
                "run the release that wrote it, or a newer one"
            )
        if version < len(steps):
            for statement in steps[version]:
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {version + 1}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return bool(version < len(steps))
