"""Content credentials (C2PA): a signed statement in the file that the picture must not be used for training.

The statement is the assertion "training and data mining" of CAWG 1.0, and C2PA's own of before, each with
"notAllowed" for data mining, training, training of generative models, and inference. It is signed with the
user's certificate, on this machine: without a time stamp and without a check of revocation, which would need
the network. No thumbnail is added. A credential is a request that an honest reader can check. It protects
nothing.
"""

from __future__ import annotations

import hashlib
import io
import json
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from unlikeness import __version__
from unlikeness.errors import PictureError, UnlikenessError, UsageError, one_line
from unlikeness.extras import check_extra
from unlikeness.files import replacing

__all__ = ["Credentials"]

_KINDS = {
    "JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp", "TIFF": "image/tiff",
    "HEIC": "image/heic", "AVIF": "image/avif",
}  # fmt: skip
"""Formats that hold a credential, as `Picture.format` names them."""

_USES = ("data_mining", "ai_training", "ai_generative_training", "ai_inference")
_LARGEST = 1 << 20
"""Bytes of a file with certificates or a key."""

_SETTINGS = {
    "builder": {"thumbnail": {"enabled": False}},
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False},
}


class Credentials:
    """Signs pictures with a certificate and its private key.

    Args:
        certificate: PEM file: the certificate, then those that signed it, without the root or with it.
        key: PEM file of its private key, without a password: EC (P-256, P-384, P-521), RSA or Ed25519.

    Raises:
        UnlikenessError: the extra `c2pa` is not installed.
        UsageError: a file cannot be read or holds something else; the key is of another certificate; the
            certificate has expired; the library does not sign with it, with its reason.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        check_extra("c2pa", "--c2pa")
        self._chain = _read(certificate, "--c2pa")
        self._algorithm, self._key = _checked(certificate, self._chain, key, _read(key, "--c2pa-key"))
        try:
            self._sign("image/png", io.BytesIO(_pixel()), io.BytesIO())
        except self._library.C2paError as error:
            raise UsageError(
                f"--c2pa {certificate} cannot sign pictures ({one_line(str(error))[:200]}); give one for "
                "content credentials, with its chain"
            ) from error

    @property
    def fingerprint(self) -> str:
        """A digest of the certificates."""
        return hashlib.sha256(self._chain).hexdigest()[:16]

    def sign(self, path: Path, format: str) -> str | None:
        """Put the statement into the file `path`, in one move.

        format: as in `Picture.format`. Returns why it holds none, for a format that cannot; else None.
        PictureError if that fails: the file stays as it was.
        """
        kind = _KINDS.get(format)
        if kind is None:
            return f"no content credential: {format} holds none"
        try:
            with replacing(path, settle=False) as part, path.open("rb") as source, part.open("x+b") as target:
                self._sign(kind, source, target)
        except (OSError, self._library.C2paError) as error:
            said = getattr(error, "strerror", None) or str(error)
            raise PictureError(
                f"{path}: it cannot be signed ({one_line(said)[:200]}); leave --c2pa out"
            ) from error
        return None

    def _sign(self, kind: str, source: Any, target: Any) -> None:
        library = self._library
        with library.Builder(json.dumps(_statement()), context=self._context) as builder:
            builder.set_intent(library.C2paBuilderIntent.EDIT)
            builder.sign(self._signer, kind, source, target)

    @cached_property
    def _library(self) -> Any:
        try:
            import c2pa
        except (ImportError, OSError) as error:  # its own library, of another system
            raise UnlikenessError(
                f"--c2pa needs c2pa-python, which cannot be loaded ({one_line(str(error))[:200]}); "
                "install it again"
            ) from error
        return c2pa

    @cached_property
    def _context(self) -> Any:
        return self._library.Context.from_dict(_SETTINGS)

    @cached_property
    def _signer(self) -> Any:
        info = self._library.C2paSignerInfo(self._algorithm.encode(), self._chain, self._key, None)
        return self._library.Signer.from_info(info)


def _statement() -> dict[str, Any]:
    def assertion(family: str) -> dict[str, Any]:
        entries = {f"{family}.{use}": {"use": "notAllowed"} for use in _USES}
        return {"label": f"{family}.training-mining", "data": {"entries": entries}}

    return {
        "claim_generator_info": [{"name": "unlikeness", "version": __version__}],
        "assertions": [assertion("cawg"), assertion("c2pa")],
    }


def _read(path: Path, option: str) -> bytes:
    try:
        if not path.is_file():
            raise UsageError(f"{option} {path} is no file; give a PEM file")
        with path.open("rb") as file:
            data = file.read(_LARGEST + 1)
    except OSError as error:
        raise UsageError(f"{option} {path} cannot be read ({error.strerror}); give a PEM file") from error
    if len(data) > _LARGEST or b"-----BEGIN " not in data:
        raise UsageError(f"{option} {path} is no PEM file; give one that begins with -----BEGIN")
    return data


def _checked(certificate: Path, chain: bytes, key: Path, private: bytes) -> tuple[str, bytes]:
    """C2PA's name of the algorithm that the key signs with, and the key as PKCS #8, whatever its form."""
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        load_pem_private_key,
    )

    try:
        first = x509.load_pem_x509_certificates(chain)[0]
        public = first.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UsageError(f"--c2pa {certificate} holds no readable certificate; check the file") from error
    try:
        secret = load_pem_private_key(private, password=None)
    except TypeError as error:
        raise UsageError(
            f"--c2pa-key {key} is locked with a password; give a copy without one, "
            f"openssl pkcs8 -topk8 -nocrypt -in {key.name} -out unlocked.pem"
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UsageError(f"--c2pa-key {key} holds no readable private key; check the file") from error
    if secret.public_key() != public:
        raise UsageError(f"--c2pa-key {key} is not the key of {certificate}; give two that belong together")
    end = first.not_valid_after_utc
    if end < datetime.now(UTC):
        raise UsageError(f"--c2pa {certificate} expired on {end:%Y-%m-%d}; give a certificate that is valid")
    sizes = {256: "es256", 384: "es384", 521: "es512"}
    if isinstance(secret, rsa.RSAPrivateKey):
        algorithm = "ps256"
    elif isinstance(secret, ed25519.Ed25519PrivateKey):
        algorithm = "ed25519"
    elif isinstance(secret, ec.EllipticCurvePrivateKey) and secret.curve.key_size in sizes:
        algorithm = sizes[secret.curve.key_size]
    else:
        raise UsageError(f"--c2pa-key {key} is of another kind; give EC P-256 to P-521, RSA or Ed25519")
    return algorithm, secret.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _pixel() -> bytes:
    """A PNG of one pixel, to try the certificate with."""
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (1, 1)).save(file, "PNG")
    return file.getvalue()
