"""Endpoints, their revisions and variants as rows of their tables."""

from __future__ import annotations

import dataclasses
import time
import uuid
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from router.core import past
from router.core.catalog import Change, Learned, Registered, Revision
from router.core.settings import Settings
from router.core.split import Rule, Variant, line_of
from router.store.tables import endpoints, history, revisions, variants
from torpor.errors import NotFound

SETTINGS, LEARNED = ({field.name for field in dataclasses.fields(kind)} for kind in (Settings, Learned))
HISTORY_KEPT = 1000  # rows an endpoint


def live(connection: Connection) -> list[Registered]:
    is_live = (endpoints.c.name == revisions.c.endpoint) & (endpoints.c.revision == revisions.c.number)
    query = select(endpoints, revisions).join(revisions, is_live).order_by(endpoints.c.name)
    return [registered(row._mapping) for row in connection.execute(query)]


def beside(connection: Connection) -> list[tuple[Variant, Registered]]:
    """Each under the name of its line."""
    query = (
        select(variants, endpoints, revisions)
        .join(endpoints, endpoints.c.name == variants.c.endpoint)
        .join(revisions, (variants.c.endpoint == revisions.c.endpoint) & (variants.c.revision == revisions.c.number))
        .order_by(variants.c.endpoint, variants.c.created_at, variants.c.name)
    )
    found = []
    for row in connection.execute(query):
        columns = row._mapping
        variant = Variant(
            name=columns[variants.c.name],
            revision=columns[variants.c.revision],
            rule=Rule(**columns[variants.c.rule]),
            created_at=columns[variants.c.created_at],
        )
        line = line_of(columns[variants.c.endpoint], variant.name)
        found.append((variant, dataclasses.replace(registered(columns), name=line, calls=0, cold_starts=0)))
    return found


def newest(connection: Connection, name: str) -> int:
    query = select(func.max(revisions.c.number)).where(revisions.c.endpoint == name)
    return int(connection.execute(query).scalar() or 0)


def numbers(connection: Connection, name: str) -> list[int]:
    """Of all its revisions, newest first."""
    query = select(revisions.c.number).where(revisions.c.endpoint == name).order_by(revisions.c.number.desc())
    return list(connection.execute(query).scalars())


def all_of(connection: Connection, name: str) -> list[Revision]:
    """Its revisions, newest first, without what their starts taught."""
    columns = (
        revisions.c.number,
        revisions.c.bento,
        revisions.c.created_at,
        revisions.c.creator,
        revisions.c.env,
        revisions.c.settings,
        revisions.c.spec,
    )
    query = select(*columns).where(revisions.c.endpoint == name).order_by(revisions.c.number.desc())
    return [
        Revision(
            number=row.number,
            bento=row.bento,
            created_at=row.created_at,
            creator=row.creator or "",
            env=row.env,
            settings=row.settings,
            spec=row.spec or {},
        )
        for row in connection.execute(query)
    ]


def before(connection: Connection, name: str) -> int | None:
    """The revision that was live before the live one, of those that are still there."""
    row = connection.execute(select(endpoints.c.past).where(endpoints.c.name == name)).first()
    there = set(numbers(connection, name))
    return next((number for number in reversed((row and row.past) or ()) if number in there), None)


def revision(connection: Connection, name: str, number: int) -> Registered:
    wanted = (revisions.c.endpoint == name) & (revisions.c.number == number)
    query = select(endpoints, revisions).join(revisions, endpoints.c.name == revisions.c.endpoint).where(wanted)
    row = connection.execute(query).first()
    if row is None:
        raise NotFound(f"{name!r} has no revision {number}\nsee `torpor history {name}`")
    return registered(row._mapping)


def put(connection: Connection, change: Change) -> None:
    now = time.time()
    row_of_it = select(endpoints.c.revision, endpoints.c.past).where(endpoints.c.name == change.name)
    known = connection.execute(row_of_it).first()
    if not known:
        assert change.live is not None
        row = {"name": change.name, "created_at": change.live.created_at, "uid": change.live.uid or uuid.uuid4().hex}
        connection.execute(insert(endpoints).values(**row, revision=0, calls=0, cold_starts=0))
    for entry in change.new:
        connection.execute(insert(revisions).values(**row_of(change.name, entry, now)))
    values: dict[str, Any] = {"updated_at": now, "fault": None, "asked": None}
    if change.live is not None:
        number, port = change.live.revision, change.live.settings.port
        before = past.after(tuple(known.past or ()), known.revision, number) if known else ()
        values |= {"revision": number, "past": list(before), "terminated": False, "port": port}
    connection.execute(update(endpoints).where(endpoints.c.name == change.name).values(**values))
    if change.variants is not None:
        connection.execute(delete(variants).where(variants.c.endpoint == change.name))
        for each in change.variants:
            row = {"endpoint": change.name, "name": each.name, "revision": each.revision}
            rule = dataclasses.asdict(each.rule)
            connection.execute(insert(variants).values(**row, rule=rule, created_at=each.created_at or now))


def row_of(name: str, entry: Registered, now: float) -> dict[str, Any]:
    return {
        "endpoint": name,
        "number": entry.revision,
        "bento": entry.bento,
        "env": entry.env,
        "settings": dataclasses.asdict(entry.settings),
        "created_at": entry.deployed_at or now,
        "learned": dataclasses.asdict(entry.learned),
        "spec": entry.spec,
        "creator": entry.creator,
    }


def delete_all(connection: Connection, name: str) -> None:
    for table in (history, revisions, variants):
        connection.execute(delete(table).where(table.c.endpoint == name))
    connection.execute(delete(endpoints).where(endpoints.c.name == name))


def terminate(connection: Connection, name: str, whether: bool) -> None:
    values = {"terminated": whether, "updated_at": time.time()}
    connection.execute(update(endpoints).where(endpoints.c.name == name).values(**values))
    if whether:
        connection.execute(delete(variants).where(variants.c.endpoint == name))


def used(connection: Connection) -> list[tuple[str, int, int]]:
    query = select(endpoints.c.name, endpoints.c.day, endpoints.c.used).where(endpoints.c.day.is_not(None))
    return [(row.name, row.day, row.used) for row in connection.execute(query)]


def use(connection: Connection, counts: list[tuple[str, int, int]]) -> None:
    for name, day, calls in counts:
        connection.execute(update(endpoints).where(endpoints.c.name == name).values(day=day, used=calls))


def note(connection: Connection, endpoint: str, at: float, kind: str, text: str) -> None:
    if connection.execute(select(endpoints.c.name).where(endpoints.c.name == endpoint)).first() is None:
        return
    row = connection.execute(insert(history).values(endpoint=endpoint, at=at, kind=kind, text=text))
    latest = row.inserted_primary_key
    if latest is not None and latest[0] % 100 == 0:
        kept = (
            select(history.c.id).where(history.c.endpoint == endpoint).order_by(history.c.id.desc()).limit(HISTORY_KEPT)
        )
        old = (history.c.endpoint == endpoint) & history.c.id.not_in(kept)
        connection.execute(delete(history).where(old))


def registered(row: Any) -> Registered:
    learned = {key: value for key, value in row[revisions.c.learned].items() if key in LEARNED}
    settings = settings_of(row[revisions.c.settings])
    if row[endpoints.c.port] is not None:  # an endpoint's address stays, whichever of its revisions is live
        settings = dataclasses.replace(settings, port=row[endpoints.c.port])
    return Registered(
        name=row[endpoints.c.name],
        revision=row[revisions.c.number],
        bento=row[revisions.c.bento],
        env=row[revisions.c.env],
        settings=settings,
        created_at=row[endpoints.c.created_at],
        learned=Learned(**{**learned, "modules": tuple(learned["modules"])}),
        calls=row[endpoints.c.calls],
        cold_starts=row[endpoints.c.cold_starts],
        last_call_at=row[endpoints.c.last_call_at],
        spec=row[revisions.c.spec] or {},
        creator=row[revisions.c.creator] or "",
        uid=row[endpoints.c.uid] or row[endpoints.c.name],
        deployed_at=row[revisions.c.created_at],
        terminated=bool(row[endpoints.c.terminated]),
    )


def settings_of(row: dict[str, Any]) -> Settings:
    """Those that this version knows."""
    return Settings(**{key: value for key, value in row.items() if key in SETTINGS})


def events(connection: Connection, endpoint: str, limit: int) -> list[tuple[float, str, str]]:
    """The last (instant, kind, text), oldest first."""
    query = select(history.c.at, history.c.kind, history.c.text).where(history.c.endpoint == endpoint)
    rows = connection.execute(query.order_by(history.c.id.desc()).limit(limit)).all()
    return [(row.at, row.kind, row.text) for row in reversed(rows)]
