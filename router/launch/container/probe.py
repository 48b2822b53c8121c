"""`python -P -m router.launch.container.probe [SOCKET]`: prints which engine torpor would ask, for `torpor doctor`."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from router.launch.container.api import ContainerApi, find_socket
from torpor.errors import TorporError


async def asked(configured: Path | None) -> dict[str, Any]:
    """`socket` and the kind's own, or the body of an error."""
    try:
        socket = find_socket(configured)
        api = ContainerApi(socket)
        try:
            return {"socket": str(socket), **dataclasses.asdict(await api.kind())}
        finally:
            await api.close()
    except TorporError as error:
        return error.body()


if __name__ == "__main__":
    print(json.dumps(asyncio.run(asked(Path(sys.argv[1]) if sys.argv[1:] else None))))
