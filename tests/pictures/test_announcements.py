"""XMP announces no video, gain map or picture that was left out, and keeps the rest."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, PngImagePlugin
from tests.pictures.makers import changed, image
from tests.pictures.test_metadata import jpeg_segments
from tests.pictures.test_previews import raw_profile

from unlikeness.pictures import open_picture, save_picture
from unlikeness.pictures.formats.metadata import ANNOUNCED, NOTE, blanked

GOOGLE = "http://ns.google.com/photos/1.0/"
BEFORE = """<?xpacket begin="\ufeff"?><x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF
 xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about=""
 xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:C="http://ns.google.com/photos/1.0/camera/" """
AFTER = """ C:SpecialTypeID = 'a > "b"' dc:format="image/jpeg"><dc:title>José Ångström</dc:title>{}
<dc:creator/></rdf:Description></rdf:RDF></x:xmpmeta>"""
MOTION = 'C:MotionPhoto="1" C:MotionPhotoVersion="1" C:MicroVideo="1" C:MicroVideoOffset="1234"'
DIRECTORY = f"""<D:Directory xmlns:D="{GOOGLE}container/" xmlns:I="{GOOGLE}container/item/"><rdf:Seq>
<rdf:li rdf:parseType="Resource">
<D:Item I:Mime="video/mp4" I:Semantic="MotionPhoto" I:Length="1234"/></rdf:li>
</rdf:Seq></D:Directory>"""
GAIN_MAP = """<h:Version xmlns:h="http://ns.adobe.com/hdr-gain-map/1.0/">1.0</h:Version>"""


def packet(attributes: str = MOTION, elements: str = DIRECTORY + GAIN_MAP) -> bytes:
    return (BEFORE + attributes + AFTER.format(elements)).encode()


def plain(attributes: str = MOTION, elements: str = DIRECTORY + GAIN_MAP) -> bytes:
    """The same packet without its announcements."""
    spaces = " ".join(" " * len(part) for part in attributes.split(" "))
    return (BEFORE + spaces + AFTER.format(" " * len(elements))).encode()


def jpeg(xmp: bytes, path: Path) -> None:
    image("RGB").save(path, "JPEG", xmp=xmp)


def png(xmp: bytes, path: Path) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", xmp.decode())
    image("RGB").save(path, "PNG", pnginfo=info)


def tiff(xmp: bytes, path: Path) -> None:
    tags = [(700, 1, len(xmp), xmp, False)]
    tifffile.imwrite(path, np.asarray(image("RGB")), photometric="rgb", extratags=tags, metadata=None)


def saver(name: str) -> Callable[[bytes, Path], None]:
    return lambda xmp, path: image("RGB").save(path, name, xmp=xmp)


WRITERS = {"jpg": jpeg, "png": png, "tif": tiff, "webp": saver("WEBP")}


def saved(source: Path) -> Path:
    picture = open_picture(source)
    target = source.with_name("target" + source.suffix)
    save_picture(picture, changed(picture), target, budget=8)
    return target


@pytest.mark.parametrize("kind", WRITERS)
def test_announcements_become_spaces_in_every_format(kind: str, tmp_path: Path) -> None:
    source = tmp_path / f"source.{kind}"
    WRITERS[kind](packet(), source)
    assert packet() in source.read_bytes()
    assert open_picture(source).note == ANNOUNCED
    target = saved(source)
    assert plain() in target.read_bytes()
    assert open_picture(target).note is None


@pytest.mark.parametrize("kind", WRITERS)
def test_xmp_that_announces_nothing_keeps_every_byte(kind: str, tmp_path: Path) -> None:
    source = tmp_path / f"source.{kind}"
    WRITERS[kind](packet("", GAIN_MAP.replace("hdr-gain-map", "hdr")), source)
    assert open_picture(source).note is None
    assert packet("", GAIN_MAP.replace("hdr-gain-map", "hdr")) in saved(source).read_bytes()


@pytest.mark.parametrize(
    "attribute",
    [
        f'xmlns:q="{GOOGLE}camera/" q:MicroVideoOffset="1"',
        'xmlns:q="http://ns.adobe.com/hdr-gain-map/1.0/" q:GainMapMax="2"',
        'xmlns:q="http://ns.apple.com/HDRGainMap/1.0/" q:HDRGainMapVersion="65536"',
        'xmlns:q="http://ns.xiaomi.com/photos/1.0/camera/" q:XMPMeta="&lt;a offset=&quot;9&quot;/&gt;"',
        'xmlns:q="http://ns.oplus.com/photos/1.0/camera/" q:VideoLength="5"',
    ],
)
def test_attributes_of_every_maker_go_and_their_neighbours_stay(attribute: str) -> None:
    declaration, _, announcement = attribute.partition(" ")
    cleaned, notes = blanked(packet(attribute, ""))
    assert cleaned == packet(declaration + " " + " " * len(announcement), "")
    assert notes == {ANNOUNCED}


def test_elements_go_whole_whatever_comes_behind_them() -> None:
    head = '<r xmlns:h="http://ns.adobe.com/hdr-gain-map/1.0/"><a>'
    for element in ("<h:X/>", "<h:X />", "<h:X\n>1</h:X >", "<h:X><h:X><b/></h:X></h:X>", "<h:X c='>'/>"):
        for tail in ("</a><b/></r>", "<b/></a></r>"):
            cleaned, _ = blanked((head + element + tail).encode())
            assert cleaned == (head + " " * len(element) + tail).encode()


def test_pictures_in_xmp_go_and_are_noted_as_thumbnails() -> None:
    thumbnails = (
        """<q:Thumbnails xmlns:q="http://ns.adobe.com/xap/1.0/"><rdf:Alt><rdf:li/></rdf:Alt></q:Thumbnails>"""
    )
    cleaned, notes = blanked(packet("", thumbnails))
    assert cleaned == packet("", " " * len(thumbnails))
    assert notes == {NOTE}


def test_what_is_not_xml_or_declares_entities_never_fails() -> None:
    bomb = b'<!DOCTYPE a [<!ENTITY b "cccc">]>' + packet()
    for xmp in (
        b"",
        b"<",
        bomb,
        packet()[:700],
        packet()[:-300],
        GOOGLE.encode() + b"camera/ \xff<",
        packet()[9:],
    ):
        assert len(blanked(xmp)[0]) == len(xmp)
    assert b"MotionPhoto" not in blanked(packet()[:-300])[0]


def test_extended_xmp_is_cleaned_across_segments_and_its_digest_follows(tmp_path: Path) -> None:
    filler = "<dc:description>" + "é" * 60000 + "</dc:description>"
    picture = f"""<G:Data xmlns:G="{GOOGLE}image/">{"QUJD" * 30000}</G:Data>"""
    whole = packet("", filler + picture + DIRECTORY)
    expected = packet("", filler + " " * len(picture + DIRECTORY))
    digest, other = (hashlib.md5(x).hexdigest().upper().encode() for x in (whole, expected))
    main = packet(f'xmlns:N="http://ns.adobe.com/xmp/note/" N:HasExtendedXMP="{digest.decode()}"', GAIN_MAP)
    extension = b"http://ns.adobe.com/xmp/extension/\0"
    bodies = [b"http://ns.adobe.com/xap/1.0/\0" + main] + [
        extension + digest + struct.pack(">II", len(whole), at) + whole[at : at + 65000]
        for at in reversed(range(0, len(whole), 65000))  # in any order
    ]
    segments = b"".join(struct.pack(">HH", 0xFFE1, 2 + len(body)) + body for body in bodies)
    source = tmp_path / "source.jpg"
    image("RGB").save(source, extra=segments)
    assert set(str(open_picture(source).note).split("; ")) == {ANNOUNCED, NOTE}
    target = saved(source)
    after = [body for marker, body in jpeg_segments(target) if marker == 0xE1]
    assert [len(body) for body in after] == [len(body) for body in bodies]
    assert digest not in target.read_bytes()
    assert b'HasExtendedXMP="' + other + b'"' in after[0]
    parts = sorted(
        (struct.unpack_from(">I", body, 71)[0], body[75:])
        for body in after
        if body.startswith(extension + other)
    )
    assert b"".join(part for _, part in parts) == expected
    assert open_picture(target).note is None


def test_the_word_of_a_gain_map_goes_with_it(tmp_path: Path) -> None:
    body = b"urn:iso:std:iso:ts:21496:-1\0" + bytes(4)
    source = tmp_path / "source.jpg"
    image("RGB").save(source, extra=struct.pack(">HH", 0xFFE2, 2 + len(body)) + body)
    assert open_picture(source).note == ANNOUNCED
    assert b"21496" not in saved(source).read_bytes()


@pytest.mark.parametrize("way", ["zTXt", "iTXt"])
def test_packed_xmp_and_raw_profiles_of_a_png_are_cleaned(way: str, tmp_path: Path) -> None:
    info = PngImagePlugin.PngInfo()
    if way == "zTXt":
        info.add_text("Raw profile type xmp", raw_profile("xmp", packet()), zip=True)
    else:
        info.add_itxt("XML:com.adobe.xmp", packet().decode(), zip=True)
    source = tmp_path / "source.png"
    image("RGB").save(source, pnginfo=info)
    assert open_picture(source).note == ANNOUNCED
    with Image.open(saved(source)) as after:
        text = next(iter(after.text.values()))  # type: ignore[attr-defined]
    assert str(text) == (raw_profile("xmp", plain()) if way == "zTXt" else plain().decode())
