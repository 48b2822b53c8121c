"""A certificate of the router's own, for trying HTTPS: whoever calls has to be told to trust it."""

from __future__ import annotations

import datetime
import ipaddress
import os
import socket
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFE = datetime.timedelta(days=397)  # the most that every client takes
RENEWED = datetime.timedelta(days=30)  # before its end


def self_signed(folder: Path, host: str, domain: str | None) -> tuple[Path, Path]:
    """The files of the certificate and its key. They are kept as long as they fit the names and live long enough."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    names = names_of(host, domain)
    if not _good(cert, key, names):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        made = ec.generate_private_key(ec.SECP256R1())
        plain = serialization.NoEncryption()
        _write(key, made.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
        _write(cert, _certificate(made, names).public_bytes(serialization.Encoding.PEM))
    return cert, key


def names_of(host: str, domain: str | None) -> list[x509.GeneralName]:
    """How callers may name this machine."""
    domains = ["localhost", "*.localhost", socket.gethostname(), *((domain, f"*.{domain}") if domain else ())]
    addresses = [ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1")]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        domains.append(host)
    else:
        if not address.is_unspecified:
            addresses.append(address)
    return [
        *(x509.DNSName(name) for name in dict.fromkeys(domains)),
        *(x509.IPAddress(each) for each in dict.fromkeys(addresses)),
    ]


def _certificate(key: ec.EllipticCurvePrivateKey, names: list[x509.GeneralName]) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "torpor, self-signed")])
    made = x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
    made = made.not_valid_before(now - datetime.timedelta(hours=1)).not_valid_after(now + LIFE)  # clocks differ
    made = made.add_extension(x509.SubjectAlternativeName(names), critical=False)
    # No authority: who trusts it trusts this key for these names and nothing that it could sign.
    made = made.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    made = made.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    made = made.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    return made.sign(key, hashes.SHA256())


def _good(cert: Path, key: Path, names: list[x509.GeneralName]) -> bool:
    try:
        found = x509.load_pem_x509_certificate(cert.read_bytes())
        private = serialization.load_pem_private_key(key.read_bytes(), None)
        shown = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, TypeError, x509.ExtensionNotFound):
        return False
    lasts = found.not_valid_after_utc - datetime.datetime.now(datetime.UTC) > RENEWED
    return lasts and list(shown) == names and found.public_key() == private.public_key()


def _write(path: Path, text: bytes) -> None:
    part = path.with_suffix(".part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(text)
    part.rename(path)
