"""What tells each line of a prompt file from all others: its id, or its content and how often that came before.

A record of the output carries the key of its line, so that a later run knows which lines are done, whatever
was killed when. Memory stays bounded for any number of lines. Knows neither records nor requests' fields but
`id`; `batch/input.py` gives keys out, `batch/resume.py` compares them.
"""

import sqlite3
from hashlib import blake2b
from typing import NamedTuple

from llmcli.errors import OutputError
from llmcli.jobs.batch.requests import RequestId

DIGEST_BYTES = 10
MAX_IN_MEMORY = 1 << 12
FILTER_BITS = 1 << 23  # 1 MiB; of a million names, one in ten that are not there is looked for in the file
_OCCURRENCE = "-"


class LineKey(NamedTuple):
    """Who a line is, and what it says.

    Attributes:
        name: differs from that of every other line of the file.
        digest: of the line's content; equal lines have equal ones.
    """

    name: str
    digest: str

    @property
    def text(self) -> str:
        """As it stands in a record: the digest, and for a line without an id the number of its occurrence."""
        return self.name if not self.name.startswith("=") else self.digest


def key_of_record(text: str, request_id: RequestId | None) -> LineKey:
    """The key of the line that a record answers, from the record's own key and id."""
    digest, occurrence, _ = text.partition(_OCCURRENCE)
    return LineKey(text if occurrence else f"={request_id}", digest)


class KeyMaker:
    """Gives the lines of one pass over a file their keys, in order."""

    def __init__(self) -> None:
        self._seen = SpillingMap()

    def first_line(self, request_id: RequestId, line: int) -> int:
        """Number of the line that had this id first: `line` itself unless an earlier one was asked about."""
        name = f"={request_id}"
        first = self._seen.get(name)
        if first is None:
            self._seen.set(name, line)
            return line
        return int(first)

    def key(self, data: bytes, request_id: RequestId | None) -> LineKey:
        """The key of a line with this content; None stands for a line that has no id, or none to go by."""
        digest = blake2b(data, digest_size=DIGEST_BYTES).hexdigest()
        if request_id is not None:
            return LineKey(f"={request_id}", digest)
        occurrence = int(self._seen.get(digest) or 0) + 1
        self._seen.set(digest, occurrence)
        return LineKey(f"{digest}{_OCCURRENCE}{occurrence}", digest)


class SpillingMap:
    """A mapping that keeps its newest entries in memory and the others in a file that vanishes with it.

    Most names that are asked for are new, and a filter (Bloom, 1970; with one hash) knows that without the file.
    """

    def __init__(self, max_in_memory: int = MAX_IN_MEMORY) -> None:
        self._max_in_memory = max_in_memory
        self._recent: dict[str, str | int] = {}
        self._spilled: sqlite3.Connection | None = None
        self._filter = bytearray()

    def get(self, name: str) -> str | int | None:
        """The value of `name`, or None."""
        found = self._recent.get(name)
        if found is not None or self._spilled is None:
            return found
        place = hash(name) % FILTER_BITS
        if not self._filter[place >> 3] >> (place & 7) & 1:
            return None
        row = self._spilled.execute("SELECT value FROM entries WHERE name = ?", (name,)).fetchone()
        return None if row is None else row[0]

    def set(self, name: str, value: str | int) -> None:
        """Add an entry, or change one.

        Raises:
            OutputError: there is no room for the file.
        """
        self._recent[name] = value
        if len(self._recent) < self._max_in_memory:
            return
        try:
            self._spill()
        except sqlite3.Error as error:
            raise OutputError(
                f"what tells lines apart can not be kept in a temporary file: {error}",
                fix="make room, or name a folder that has some: TMPDIR=FOLDER llmcli run ...",
            ) from None

    def _spill(self) -> None:
        if self._spilled is None:
            # A database without a name is a temporary file, of which SQLite keeps a bounded part in memory.
            self._spilled = sqlite3.connect("", isolation_level=None)
            self._spilled.execute("PRAGMA journal_mode = OFF")
            self._spilled.execute("CREATE TABLE entries (name TEXT PRIMARY KEY, value) WITHOUT ROWID")
            self._filter = bytearray(FILTER_BITS >> 3)
        for name in self._recent:
            place = hash(name) % FILTER_BITS
            self._filter[place >> 3] |= 1 << (place & 7)
        self._spilled.execute("BEGIN")
        self._spilled.executemany(
            "INSERT OR REPLACE INTO entries VALUES (?, ?)", sorted(self._recent.items())
        )
        self._spilled.execute("COMMIT")
        self._recent.clear()
