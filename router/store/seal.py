"""The seal of the secrets: they lie encrypted in the store, with a key that lies beside it in a file of its own."""

from __future__ import annotations

import base64
import binascii
import os
import stat
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken

from router.disk import disk
from torpor.errors import InvalidConfig

KEY_BYTES = 32


class Seal:
    """`path`: the key's file, which is made at first need, for its owner alone. All of it blocks."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fernet: Fernet | None = None

    def close(self, text: bytes, *, first: bool) -> bytes:
        """`first`: nothing was ever sealed, so that the key may be made. Raises InvalidConfig and DiskFull."""
        return self._opened(first).encrypt(text)

    def open(self, sealed: bytes) -> bytes:
        """Raises InvalidConfig where the key is not there, or is another one."""
        try:
            return self._opened(False).decrypt(sealed)
        except InvalidToken:
            raise InvalidConfig(
                f"a secret was sealed with another key than that in {self._path}\n"
                "put the right key back, or delete the secret and make it again"
            ) from None

    def _opened(self, make: bool) -> Fernet:
        if self._fernet is None:
            self._fernet = Fernet(self._key(make))
        return self._fernet

    def _key(self, make: bool) -> bytes:
        try:
            with self._path.open("rb") as file:
                mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
                key = file.read(1024).strip()
        except FileNotFoundError:
            if make:
                return self._made()
            raise InvalidConfig(
                f"the key of the secrets, {self._path}, is not there\n"
                "put it back from a backup, or delete the secrets and make them again"
            ) from None
        except OSError as error:
            raise InvalidConfig(
                f"the key of the secrets, {self._path}, cannot be read: {error.strerror}\n"
                "see that this user may read it"
            ) from None
        if mode & 0o077:
            raise InvalidConfig(
                f"others may read the key of the secrets: {self._path} has the mode {mode:04o}\n"
                f"make it its owner's alone: chmod 600 {self._path}"
            )
        if not sound(key):
            raise InvalidConfig(f"{self._path} holds no key of secrets\nput the right one back from a backup")
        return key

    def _made(self) -> bytes:
        """Whole or not at all: a half of it would be all that what is sealed afterwards hangs on."""
        key, part = Fernet.generate_key(), self._path.with_suffix(".part")
        with disk(self._path.parent):
            part.unlink(missing_ok=True)
            with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(key)
                file.flush()
                os.fsync(file.fileno())
            part.rename(self._path)
            folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        return key


def sound(key: bytes) -> bool:
    """Whether it is a key of Fernet's: 32 bytes in URL-safe base64."""
    try:
        return len(base64.urlsafe_b64decode(key)) == KEY_BYTES
    except (binascii.Error, ValueError):
        return False
