"""How many rows have ended. Triggers keep it with each change, so that nobody counts the rows of years each second."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Final

_TABLE: Final = """
CREATE TABLE tally (                  -- how many rows there are, so that nobody has to count them; triggers keep it
  what          TEXT NOT NULL,        -- 'object' (refused ones alone), 'task' (ended ones alone), 'delivery'
  name          TEXT NOT NULL,        -- inlet, model, destination
  state         TEXT NOT NULL,
  count         INTEGER NOT NULL,
  last          TEXT,                 -- when a row came to this state last, UTC
  PRIMARY KEY (what, name, state)
) STRICT, WITHOUT ROWID;
"""


def _one_more(what: str, name: str, state: str, changed: str) -> str:
    return (
        f"INSERT INTO tally (what, name, state, count, last) VALUES ({what}, {name}, {state}, 1, {changed})"  # noqa: S608
        " ON CONFLICT DO UPDATE SET count = count + 1, last = excluded.last"
    )


def _one_less(what: str, name: str) -> str:
    return (
        f"UPDATE tally SET count = count - 1 WHERE what = '{what}'"  # noqa: S608 - texts of ours
        f" AND name = old.{name} AND state = old.state"
    )


def _fewer(what: str, name: str, counts: str) -> str:
    return f"CREATE TRIGGER {what}_fewer AFTER DELETE ON {what} WHEN old.{counts} BEGIN {_one_less(what, name)}; END;\n"


def _triggers(what: str, name: str, counts: str) -> str:
    """Of one table.

    Args:
        what: the table.
        name: the column by which its rows are told apart, beside their state.
        counts: whether a row counts, by its state.
    """
    more = _one_more(f"'{what}'", f"new.{name}", "new.state", "new.changed")
    moved = f"AFTER UPDATE OF state ON {what} WHEN old.state <> new.state AND"
    return (
        f"CREATE TRIGGER {what}_more AFTER INSERT ON {what} WHEN new.{counts} BEGIN {more}; END;\n"
        f"CREATE TRIGGER {what}_came {moved} new.{counts} BEGIN {more}; END;\n"
        f"CREATE TRIGGER {what}_went {moved} old.{counts} BEGIN {_one_less(what, name)}; END;\n"
        + _fewer(what, name, counts)
    )


# a trigger would cost each image that is kept, for those that are not: `refused` counts objects that come
_OBJECTS: Final = _fewer("object", "inlet", "state = 'refused'")
_TASKS: Final = _triggers("task", "model", "state IN ('delivered', 'not-analysed', 'failed')")
_DELIVERIES: Final = _triggers("delivery", "destination", "state <> ''")
TALLY: Final = f"{_TABLE}{_OBJECTS}{_TASKS}{_DELIVERIES}"
"""The table and its triggers."""

_REFUSED: Final = _one_more("'object'", "?", "'refused'", "?")


def refused(connection: sqlite3.Connection, inlet: str, at: str) -> None:
    """Count an object that was refused."""
    connection.execute(_REFUSED, (inlet, at))


@dataclass(frozen=True)
class Delivered:
    """What one destination has taken, and what was given up.

    Attributes:
        last: when it took something last, UTC; `None` where it never did.
    """

    delivered: int = 0
    failed: int = 0
    last: str | None = None


def ended(connection: sqlite3.Connection) -> dict[str, dict[str, int]]:
    """How many tasks have each end, and how many objects were refused: `{"object": {"refused": 3}, "task": {…}}`.

    Nothing is counted, so it takes no longer after years; see the table `tally`.
    """
    found: dict[str, dict[str, int]] = {"object": {}, "task": {}}
    for what, state, count in connection.execute(
        "SELECT what, state, sum(count) FROM tally WHERE what <> 'delivery' GROUP BY what, state HAVING sum(count) > 0"
    ):
        found[what][state] = count
    return found


def deliveries(connection: sqlite3.Connection) -> dict[str, Delivered]:
    """What each destination has taken so far, by its name; not counted either."""
    rows = connection.execute(
        "SELECT name, total(CASE state WHEN 'delivered' THEN count END) AS delivered,"
        " total(CASE state WHEN 'failed' THEN count END) AS failed,"
        " max(CASE state WHEN 'delivered' THEN last END) AS last FROM tally WHERE what = 'delivery' GROUP BY name"
    )
    return {row["name"]: Delivered(int(row["delivered"]), int(row["failed"]), row["last"]) for row in rows}


def miscounted(connection: sqlite3.Connection) -> list[tuple[str, int, int]]:
    """Where the table `tally` is not what counting says: what is counted, what `tally` says, how many there are."""
    rows = connection.execute(
        "WITH there AS (SELECT 'object' AS what, inlet AS name, state, count(*) AS count FROM object"
        " WHERE state = 'refused' GROUP BY inlet, state UNION ALL"
        " SELECT 'task', model, state, count(*) FROM task WHERE state IN ('delivered', 'not-analysed', 'failed')"
        " GROUP BY model, state UNION ALL"
        " SELECT 'delivery', destination, state, count(*) FROM delivery GROUP BY destination, state)"
        " SELECT what, name, state, sum(said) AS said, sum(found) AS found FROM"
        " (SELECT what, name, state, count AS said, 0 AS found FROM tally"
        " UNION ALL SELECT what, name, state, 0, count FROM there)"
        " GROUP BY what, name, state HAVING sum(said) <> sum(found)"
    )
    return [(" ".join(filter(None, (row[0], row[1], row[2]))), row["said"], row["found"]) for row in rows]
