"""Endpoints as they are registered: of a deploy, and with what was counted of them."""

from __future__ import annotations

import dataclasses
import time
import uuid

from router.core.catalog import Catalog, Registered
from router.core.split import line_of
from router.shell.engine import Engine
from router.shell.request import Part, Request


def entry_of(request: Request, part: Part, number: int, catalog: Catalog) -> Registered:
    """The revision that a part of a deploy is to be; what was counted is the endpoint's, and goes on."""
    before = None if part.variant else catalog.endpoints.get(request.name)
    kept = before or catalog.terminated.get(request.name)
    return Registered(
        name=line_of(request.name, part.variant),
        revision=number,
        bento=part.bento,
        env=part.env,
        settings=part.settings,
        created_at=kept.created_at if kept else time.time(),
        calls=kept.calls if kept else 0,
        cold_starts=kept.cold_starts if kept else 0,
        last_call_at=kept.last_call_at if kept else None,
        spec=part.spec,
        creator=request.creator,
        uid=kept.uid if kept else request.uid or uuid.uuid4().hex,
        deployed_at=time.time(),
    )


def counted(entry: Registered, engine: Engine) -> Registered:
    """With the calls and cold starts that its line has counted, which ends."""
    line = engine.schedule.lines.get(entry.name)
    if line is None or line.last_call is None:
        return entry
    return dataclasses.replace(
        entry,
        calls=entry.calls + line.calls,
        cold_starts=entry.cold_starts + line.cold_starts,
        last_call_at=time.time() - engine.ago(line.last_call),
    )
