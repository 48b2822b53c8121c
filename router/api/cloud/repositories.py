"""Repositories of bentos and models in BentoCloud's API: one implementation of the calls that differ by a word."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from router.api.cloud.shapes import COUNT_MAX, instant, listing, resource
from router.api.read import read_object
from router.core.artifacts import Artifact, Kind, Labels, Repository
from router.shell.direct import DirectUploads
from router.shell.repositories import Repositories, Said
from torpor.errors import BadRequest

DIGEST = re.compile(r"\s*sha-256=:([A-Za-z0-9+/=]+):\s*")  # of Content-Digest (RFC 9530)
TAR = "application/x-tar"


def repository_routes(direct: DirectUploads) -> list[BaseRoute]:
    return [route for kind in Kind for route in RepositoryRoutes(kind, direct.repositories, direct).routes()]


def bento_shown(direct: DirectUploads, tag: str) -> dict[str, Any] | None:
    """A bento with its repository; None for one that is not here. Blocks."""
    name, _, version = tag.partition(":")
    rows = direct.repositories.rows
    artifact, home = rows.find(Kind.BENTO, name, version), rows.find_repository(Kind.BENTO, name)
    if artifact is None or home is None:
        return None
    return {**shown_artifact(artifact, direct.strategy(artifact)), "repository": shown_repository(home), "models": []}


@dataclass(frozen=True, slots=True)
class RepositoryRoutes:
    """All calls about one kind."""

    kind: Kind
    repositories: Repositories
    direct: DirectUploads

    def routes(self) -> list[BaseRoute]:
        root = f"/api/v1/{self.kind}_repositories"
        versions = f"{root}/{{name}}/{self.kind}s"
        each = f"{versions}/{{version}}"
        calls: dict[str, Callable[[Request], Any]] = {
            "start_upload": self.start_upload,
            "finish_upload": self.finish_upload,
            "presign_upload_url": self.put_link,
            "presign_download_url": self.get_link,
            "start_multipart_upload": self.begin,
            "presign_multipart_upload_url": self.part_link,
            "complete_multipart_upload": self.complete,
        }
        return [
            Route(root, self.create_repository, methods=["POST"]),
            Route(f"{root}/{{name}}", self.repository, methods=["GET"]),
            Route(versions, self.versions, methods=["GET"]),
            Route(versions, self.create, methods=["POST"]),
            Route(each, self.get, methods=["GET"]),
            Route(each, self.update, methods=["PATCH"]),
            Route(f"{each}/upload", self.upload, methods=["PUT"]),
            Route(f"{each}/download", self.download, methods=["GET"]),
            *(Route(f"{each}/{name}", call, methods=["PATCH"]) for name, call in calls.items()),
            Route(f"/api/v1/{self.kind}s", self.all, methods=["GET"]),
        ]

    async def repository(self, request: Request) -> Response:
        found = await self.repositories.repository(self.kind, request.path_params["name"])
        latest = await self.repositories.latest(self.kind, found.name)
        return JSONResponse(shown_repository(found, self.shown(latest) if latest is not None else None))

    async def create_repository(self, request: Request) -> Response:
        body = await read_object(request)
        name, description = text(body, "name"), text(body, "description", "")
        return JSONResponse(shown_repository(await self.repositories.create_repository(self.kind, name, description)))

    async def versions(self, request: Request) -> Response:
        found = await self.repositories.versions(self.kind, request.path_params["name"])
        return listing(request, matching(found, request), self.shown)

    async def all(self, request: Request) -> Response:
        """With the repository in each."""
        homes = await self.repositories.rows.repositories(self.kind)
        found = [each for each in await self.repositories.rows.all(self.kind) if each.name in homes]

        def with_home(artifact: Artifact) -> dict[str, Any]:
            return {**self.shown(artifact), "repository": shown_repository(homes[artifact.name])}

        return listing(request, matching(found, request), with_home, COUNT_MAX)

    async def get(self, request: Request) -> Response:
        return JSONResponse(self.shown(await self.repositories.get(*self.at(request))))

    async def create(self, request: Request) -> Response:
        body = await read_object(request)
        version = text(body, "version")
        said = await asyncio.to_thread(read_said, self.kind, body, "Create")
        found = await self.repositories.create(self.kind, request.path_params["name"], version, said)
        return JSONResponse(self.shown(found))

    async def update(self, request: Request) -> Response:
        body = await read_object(request)
        said = await asyncio.to_thread(read_said, self.kind, body, "Update")
        return JSONResponse(self.shown(await self.repositories.update(*self.at(request), said)))

    async def start_upload(self, request: Request) -> Response:
        return JSONResponse(self.shown(await self.repositories.start_upload(*self.at(request))))

    async def upload(self, request: Request) -> Response:
        at = self.at(request)
        try:
            found = await self.repositories.upload(*at, request.stream(), sent_digest(request))
        except ClientDisconnect:
            await self.repositories.fail(*at, "the upload broke off")
            return PlainTextResponse("", 400)  # nobody reads it
        return JSONResponse(self.shown(found))

    async def download(self, request: Request) -> Response:
        found = await self.repositories.get(*self.at(request))
        size, stream = await self.repositories.open_tar(found)
        return StreamingResponse(stream, media_type=TAR, headers={"Content-Length": str(size)})

    async def finish_upload(self, request: Request) -> Response:
        body = await read_object(request)
        status, reason = text(body, "status"), text(body, "reason", "")
        return JSONResponse(self.shown(await self.direct.finish(*self.at(request), status, reason)))

    async def put_link(self, request: Request) -> Response:
        found, link = await self.direct.put_link(*self.at(request))
        return JSONResponse({**self.shown(found), "presigned_upload_url": link})

    async def get_link(self, request: Request) -> Response:
        found, link = await self.direct.get_link(*self.at(request))
        return JSONResponse({**self.shown(found), "presigned_download_url": link})

    async def begin(self, request: Request) -> Response:
        return JSONResponse(self.shown(await self.direct.begin(*self.at(request))))

    async def part_link(self, request: Request) -> Response:
        body = await read_object(request)
        upload, number = text(body, "upload_id"), whole(body, "part_number")
        found, link = await self.direct.part_link(*self.at(request), upload, number)
        return JSONResponse({**self.shown(found), "presigned_upload_url": link})

    async def complete(self, request: Request) -> Response:
        body = await read_object(request)
        parts = body.get("parts")
        if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
            raise BadRequest("`parts` has to be a list of objects\ngive part_number and etag of each")
        listed = [(whole(part, "part_number"), text(part, "etag")) for part in parts]
        return JSONResponse(self.shown(await self.direct.complete(*self.at(request), text(body, "upload_id"), listed)))

    def at(self, request: Request) -> tuple[Kind, str, str]:
        return self.kind, request.path_params["name"], request.path_params["version"]

    def shown(self, artifact: Artifact) -> dict[str, Any]:
        return shown_artifact(artifact, self.direct.strategy(artifact))


def shown_artifact(artifact: Artifact, strategy: str | None) -> dict[str, Any]:
    """`strategy`: how its bytes are sent and fetched."""
    head = resource(
        artifact.kind, artifact.version, artifact.uid, artifact.created_at, artifact.updated_at, artifact.labels
    )
    return {
        **head,
        "description": artifact.description,
        "version": artifact.version,
        "image_build_status": "success",  # nothing is built of it but its environment, at its deploy
        "upload_status": artifact.status,
        "upload_finished_reason": artifact.reason,
        "presigned_upload_url": "",
        "presigned_download_url": "",
        "manifest": artifact.manifest,
        "transmission_strategy": strategy,
        "upload_id": (artifact.upload or {}).get("id", ""),
        "upload_started_at": None,
        "upload_finished_at": None,
        "build_at": artifact.build_at or instant(artifact.created_at),
    }


def shown_repository(repository: Repository, latest: dict[str, Any] | None = None) -> dict[str, Any]:
    head = resource(
        f"{repository.kind}_repository",
        repository.name,
        repository.uid,
        repository.created_at,
        repository.updated_at,
        repository.labels,
    )
    return {**head, "description": repository.description, f"latest_{repository.kind}": latest}


def sent_digest(request: Request) -> str | None:
    """The body's SHA-256 in hex, where its sender says it. Raises BadRequest for one that cannot be."""
    parts = [DIGEST.fullmatch(part) for part in request.headers.get("Content-Digest", "").split(",")]
    for said in (match[1] for match in parts if match):
        try:
            digest = base64.b64decode(said, validate=True)
        except ValueError:
            digest = b""
        if len(digest) != hashlib.sha256().digest_size:
            raise BadRequest(f"Content-Digest says sha-256=:{said}:, which is none\nwrite its 32 bytes in base64")
        return digest.hex()
    return None


def matching(found: list[Artifact], request: Request) -> list[Artifact]:
    """Those in whose tag and labels every word of the query is."""
    words = (request.query_params.get("search", "") or request.query_params.get("q", "")).split()
    if not words:
        return found
    said = [(each, " ".join([each.tag, *(f"{x['key']}={x['value']}" for x in each.labels)])) for each in found]
    return [each for each, line in said if all(word in line for word in words)]


def read_said(kind: Kind, body: dict[str, Any], verb: str) -> Said:
    """Checked by BentoML's own types, kept as it came. Raises BadRequest with every fault. Blocks: it imports them."""
    from bentoml._internal.cloud.schemas import schemasv1
    from bentoml._internal.cloud.schemas.utils import cloud_converter
    from cattrs import ClassValidationError, transform_error

    types = {"Create": {Kind.BENTO: schemasv1.CreateBentoSchema, Kind.MODEL: schemasv1.CreateModelSchema}}
    expected = types.get(verb, {}).get(kind, schemasv1.UpdateBentoSchema if kind is Kind.BENTO else None)
    try:
        if expected is not None:
            cloud_converter.structure(body, expected)
    except ClassValidationError as error:
        raise not_valid(kind, "; ".join(fault.replace(" @ $", " at ") for fault in transform_error(error))) from None
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise not_valid(kind, str(error) or type(error).__name__) from None
    manifest, labels = body.get("manifest"), body.get("labels")
    if manifest is not None and not isinstance(manifest, dict):
        raise not_valid(kind, "`manifest` is no object")
    return Said(
        description=text(body, "description", "") if body.get("description") is not None else None,
        manifest=manifest,
        labels=read_labels(kind, labels) if labels is not None else None,
        build_at=built(text(body, "build_at")) if body.get("build_at") else None,
    )


def read_labels(kind: Kind, labels: Any) -> Labels:
    if not isinstance(labels, list) or not all(isinstance(each, dict) for each in labels):
        raise not_valid(kind, "`labels` is no list of objects")
    return tuple({"key": text(each, "key"), "value": text(each, "value", "")} for each in labels)


def built(said: str) -> str:
    """With its zone: the client compares it with instants that have one. What it sends without is UTC."""
    try:
        at = datetime.fromisoformat(said)
    except ValueError:
        raise BadRequest(f"build_at={said!r} is no instant\nwrite it as 2026-01-31 12:00:00.000000") from None
    return (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).isoformat()


def text(body: dict[str, Any], key: str, default: str | None = None) -> str:
    found = body.get(key)
    found = default if found is None else found
    if not isinstance(found, str):
        raise BadRequest(f"`{key}` has to be a string, and is {found!r}\ngive one")
    return found


def whole(body: dict[str, Any], key: str) -> int:
    found = body.get(key)
    if not isinstance(found, int) or isinstance(found, bool):
        raise BadRequest(f"`{key}` has to be a whole number, and is {found!r}\ngive one")
    return found


def not_valid(kind: Kind, faults: str) -> BadRequest:
    return BadRequest(f"what is said of the {kind} is not valid: {faults}\nuse the bentoml of the platform's version")
