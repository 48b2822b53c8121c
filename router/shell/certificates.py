"""The certificate that the listeners show: read at the start, read again when its files have changed."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

from torpor.errors import InvalidConfig

log = logging.getLogger("torpor.tls")


class Certificates:
    """A certificate (with its chain) and its key, as PEM files. Raises InvalidConfig for a pair that is none."""

    def __init__(self, cert: Path, key: Path) -> None:
        self._cert = cert
        self._key = key
        self._current = self._read()
        # The listeners keep this context; each handshake goes over to the one that was read last.
        self.context = self._read()
        self.context.sni_callback = self._choose

    def reload(self) -> None:
        """New connections get what the files hold now. Connections that exist go on; a broken pair changes nothing."""
        try:
            self._current = self._read()
        except InvalidConfig as error:
            log.error("the certificate stays as it was: %s", error.message.replace("\n", "; "))
        else:
            log.info("the certificate was read again from %s", self._cert)

    def _choose(self, connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        """Called in every handshake, with or without a name."""
        connection.context = self._current

    def _read(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        try:
            # Without a password here, an encrypted key would ask for one on the terminal.
            context.load_cert_chain(self._cert, self._key, password="")
        except OSError as error:  # an SSLError is one too
            raise InvalidConfig(
                f"no certificate and key can be read from {self._cert} and {self._key}: {reason(error)}\n"
                "tls_cert and tls_key have to name PEM files that belong together, the key without a password"
            ) from None
        return context


def reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).lower().replace("_", " ")
    return error.strerror or str(error)
