"""`python -P -m router.tokens FOLDER ACTION [JSON]`: the tokens of a platform that does not run.

Prints what the control plane would answer. Whoever may write the folder needs no token for it.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

from router.api.tokens import view
from router.shell.tokens import Tokens, expiry
from router.store import DataLock, Store
from torpor.cli.exits import exit_code
from torpor.errors import TorporError


async def act(tokens: Tokens, action: str, asked: dict[str, Any]) -> dict[str, Any]:
    """`create`, `ls` or `revoke`, as `router/api/tokens.py` answers them."""
    tokens.load()
    if action == "create":
        token, text = await tokens.create(asked["name"], asked["scopes"], expiry(asked["expires_in"]))
        return {**view(token), "token": text}
    if action == "revoke":
        return {**view(await tokens.revoke(asked["token"]))}
    return {"tokens": [view(token) for token in tokens.all()]}


def main() -> int:
    folder, action, asked = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
    try:
        lock = DataLock(folder)
        try:
            store = Store.at(folder)
            try:
                answer = asyncio.run(act(Tokens(store, time.time), action, asked))
            finally:
                store.close()
        finally:
            lock.close()
    except TorporError as error:
        print(json.dumps(error.body()))
        return exit_code(error)
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
