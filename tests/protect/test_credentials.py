"""`--c2pa` puts a signed statement into every copy and changes nothing else; wrong certificates are told."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import c2pa
import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from PIL import Image
from tests.pictures.makers import ICC, exif, image

from unlikeness.cli import main
from unlikeness.errors import UsageError
from unlikeness.pictures import open_picture
from unlikeness.pictures.credentials import Credentials

KEYS: dict[str, Callable[[], Any]] = {
    "ec": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ec384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "rsa": lambda: rsa.generate_private_key(65537, 2048),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
}
PROTECT = ["--psnr", "34", "-q"]


def certified(
    folder: Path, kind: str = "ec", *, days: int = 30, password: bytes | None = None, for_it: bool = True
) -> tuple[Path, Path]:
    """Files with a certificate that a self-made authority signed for content credentials, and its key.

    for_it: whether the certificate says what it is for.
    """
    authority, key = KEYS["ec"](), KEYS[kind]()
    today = datetime.now(UTC)

    def signed(name: str, public: Any, *, ca: bool) -> bytes:
        of = {"root": "A test authority", "leaf": "A photographer"}
        words = (NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME)
        subject, issuer = (
            x509.Name([x509.NameAttribute(word, of[one]) for word in words]) for one in (name, "root")
        )
        usage = dict.fromkeys(
            ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only",
             "decipher_only"), False,
        )  # fmt: skip
        builder = (
            x509.CertificateBuilder(issuer, subject, public, x509.random_serial_number())
            .not_valid_before(today - timedelta(days=400))
            .not_valid_after(today + timedelta(days=3000 if ca else days))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(
                x509.KeyUsage(digital_signature=not ca, key_cert_sign=ca, crl_sign=ca, **usage), critical=True
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), critical=False
            )
        )
        if for_it and not ca:
            use = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
            builder = builder.add_extension(use, critical=False)
        return builder.sign(authority, hashes.SHA256()).public_bytes(Encoding.PEM)

    chain = signed("leaf", key.public_key(), ca=False) + signed("root", authority.public_key(), ca=True)
    files = folder / f"{kind}.pem", folder / f"{kind}-key.pem"
    files[0].write_bytes(chain)
    how = NoEncryption() if password is None else BestAvailableEncryption(password)
    files[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how))
    return files


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return certified(tmp_path_factory.mktemp("certificate"))


def flags(files: tuple[Path, Path]) -> list[str]:
    return ["--c2pa", str(files[0]), "--c2pa-key", str(files[1])]


def read(path: Path) -> dict[str, Any]:
    """The manifest store of a file, which holds one manifest."""
    with c2pa.Reader(str(path)) as reader:
        store: dict[str, Any] = json.loads(reader.json())
    assert len(store["manifests"]) == 1
    return store


def pictures(folder: Path) -> list[Path]:
    """One picture of every format, with EXIF and a profile where it can have them."""
    folder.mkdir()
    about = {"exif": exif(), "icc_profile": ICC}
    large = image("RGB").resize((136, 84))
    made = []
    kinds: dict[str, dict[str, Any]] = {
        "a.jpg": {"quality": 95, **about}, "b.png": about, "c.webp": {"lossless": True, **about},
        "d.webp": {"quality": 95, **about}, "e.tif": {"compression": "tiff_lzw", "icc_profile": ICC},
        "f.avif": {"quality": 95, **about}, "g.heic": {"quality": 95, **about}, "h.bmp": {},
    }  # fmt: skip
    for name, options in kinds.items():
        if name.endswith("heic"):
            from pillow_heif import register_heif_opener

            register_heif_opener()
        large.save(folder / name, **options)
        made.append(folder / name)
    return made


def test_every_copy_says_that_training_is_not_allowed_and_nothing_else_changes(
    tmp_path: Path, mine: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    files = pictures(tmp_path / "in")
    plain, signed = tmp_path / "plain", tmp_path / "signed"
    assert main(["protect", str(tmp_path / "in"), "-o", str(plain), *PROTECT]) == 0
    capsys.readouterr()
    assert main(["protect", str(tmp_path / "in"), "-o", str(signed), *PROTECT, *flags(mine)]) == 0
    assert "note on 1 picture: no content credential: BMP holds none" in capsys.readouterr().err
    for file in files:
        one, other = open_picture(plain / file.name), open_picture(signed / file.name)
        np.testing.assert_array_equal(one.pixels, other.pixels)
        if file.suffix == ".bmp":
            continue
        store = read(signed / file.name)
        (manifest,) = store["manifests"].values()
        said = {one["label"]: one["data"] for one in manifest["assertions"]}
        for family in ("cawg", "c2pa"):
            entries = said[f"{family}.training-mining"]["entries"]
            assert entries == {
                f"{family}.{use}": {"use": "notAllowed"}
                for use in ("data_mining", "ai_training", "ai_generative_training", "ai_inference")
            }
        assert manifest["claim_generator_info"][0]["name"] == "unlikeness"
        assert manifest["signature_info"]["common_name"] == "A photographer"
        assert {one["code"] for one in store["validation_status"]} == {"signingCredential.untrusted"}
        assert "thumbnail" not in json.dumps(store)
        assert "time" not in manifest["signature_info"], "nothing was asked of a time stamp's server"
        if file.suffix != ".heic":
            with Image.open(plain / file.name) as before, Image.open(signed / file.name) as after:
                tags = dict(after.getexif())
                tags.pop(52545, None)  # where a TIFF has its credential
                assert tags == dict(before.getexif())
                assert before.info.get("icc_profile") == after.info.get("icc_profile")


def test_a_run_goes_on_and_another_certificate_signs_anew(
    tmp_path: Path, mine: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    image("RGB").save(tmp_path / "a.png")
    words = ["protect", str(tmp_path / "a.png"), "-o", str(tmp_path / "out"), *PROTECT]
    for given, end in (
        (flags(mine), "1 protected"),
        (flags(mine), "1 done before"),
        (flags(certified(tmp_path, "ed25519")), "1 protected"),
        ([], "1 protected"),
    ):
        assert main([*words, *given]) == 0
        assert end in capsys.readouterr().out
    with pytest.raises(c2pa.C2paError):
        read(tmp_path / "out" / "a.png")


def test_a_credential_of_before_is_left_out_and_said(
    tmp_path: Path, mine: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    image("RGB").save(tmp_path / "a.jpg", quality=95)
    Credentials(*mine).sign(tmp_path / "a.jpg", "JPEG")
    before = read(tmp_path / "a.jpg")["active_manifest"]
    words = ["protect", str(tmp_path / "a.jpg"), "-o", str(tmp_path / "out"), *PROTECT, *flags(mine)]
    assert main(words) == 0
    assert "content credentials left out" in capsys.readouterr().err
    assert read(tmp_path / "out" / "a.jpg")["active_manifest"] != before


@pytest.mark.parametrize("kind", KEYS)
def test_every_kind_of_key_signs(kind: str, tmp_path: Path) -> None:
    """In its own PEM form too ("EC PRIVATE KEY", "RSA PRIVATE KEY")."""
    image("RGB").save(tmp_path / "a.png")
    certificate, key = certified(tmp_path, kind)
    assert Credentials(certificate, key).sign(tmp_path / "a.png", "PNG") is None
    read(tmp_path / "a.png")
    if kind != "ed25519":
        secret = load_pem_private_key(key.read_bytes(), None)
        key.write_bytes(secret.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()))
        assert Credentials(certificate, key).sign(tmp_path / "a.png", "PNG") is None


def test_what_is_wrong_with_a_certificate_is_one_sentence(tmp_path: Path, mine: tuple[Path, Path]) -> None:
    image("RGB").save(tmp_path / "a.png")
    other = certified(tmp_path, "rsa")
    for name in ("old", "locked", "purpose"):
        (tmp_path / name).mkdir()
    lone = tmp_path / "lone.pem"
    lone.write_bytes(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    short = tmp_path / "short.pem"
    parts = mine[0].read_bytes().split(b"-----BEGIN")
    short.write_bytes(b"-----BEGIN" + parts[2])
    for files, said in (
        ((tmp_path / "nosuch.pem", mine[1]), "nosuch.pem is no file"),
        ((tmp_path / "a.png", mine[1]), "a.png is no PEM file"),
        ((lone, mine[1]), "holds no readable certificate"),
        ((mine[0], mine[0]), "holds no readable private key"),
        ((mine[0], other[1]), "is not the key of"),
        ((short, mine[1]), "is not the key of"),
        (certified(tmp_path / "old", days=-1), "expired on"),
        (certified(tmp_path / "purpose", for_it=False), "cannot sign pictures"),
        (certified(tmp_path / "locked", password=b"secret"), "locked with a password"),
    ):
        with pytest.raises(UsageError, match=said) as caught:
            Credentials(*files)
        assert "\n" not in str(caught.value)


def test_one_without_the_other_is_misuse(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image("RGB").save(tmp_path / "a.png")
    words = ["protect", str(tmp_path / "a.png"), "-o", str(tmp_path / "out")]
    for option in ("--c2pa", "--c2pa-key"):
        assert main([*words, option, "x.pem"]) == 2
        assert "--c2pa and --c2pa-key belong together" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
