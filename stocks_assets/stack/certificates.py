"""Certificates by which the parts of the S3 server know each other, made anew at each start."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from stocks_assets.stack import home as homes

_PARTS = ("VOLUME", "MASTER", "FILER", "S3", "MSG_BROKER", "MSG_AGENT", "ADMIN", "WORKER", "MQ")
_CLIENT = "CLIENT"
_VALID = timedelta(days=3650)


def environment(folder: Path) -> Mapping[str, str]:
    """Make certificates in `folder`, and return the variables that name them to SeaweedFS.

    All parts share one, as they share a process. The key that signed it is kept nowhere, so no
    other certificate will ever be accepted.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    authority, certificate = folder / "ca.pem", folder / "parts.pem"
    key = folder / "parts.key"
    signing, own = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    signed_by = _certificate("stocks authority", signing, "stocks authority", signing, is_ca=True)
    homes.write_private(authority, _pem(signed_by))
    homes.write_private(
        certificate, _pem(_certificate("stocks", own, "stocks authority", signing, is_ca=False))
    )
    homes.write_private(
        key,
        own.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ).decode(),
    )
    return {
        "WEED_GRPC_CA": str(authority),
        **{f"WEED_GRPC_{part}_CERT": str(certificate) for part in (*_PARTS, _CLIENT)},
        **{f"WEED_GRPC_{part}_KEY": str(key) for part in (*_PARTS, _CLIENT)},
    }


def _certificate(
    subject: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: str,
    signing: ec.EllipticCurvePrivateKey,
    *,
    is_ca: bool,
) -> x509.Certificate:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # A clock that was set back stops no start.
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + _VALID)
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .sign(signing, hashes.SHA256())
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()
