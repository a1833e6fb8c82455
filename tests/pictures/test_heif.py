"""Metadata of a HEIC or AVIF file is kept wherever it stands, and the note names what is dropped."""

from __future__ import annotations

import io
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import piexif
import pillow_heif
import pytest
from PIL import Image
from tests.pictures.boxes import (
    ALPHA,
    DEPTH,
    GAIN_MAP,
    MATTE,
    Part,
    assemble,
    aux,
    box,
    clap,
    nclx,
    pasp,
    picture_part,
)
from tests.pictures.makers import ICC, changed, image, samples
from tests.pictures.test_announcements import packet, plain
from tests.pictures.test_previews import small

from unlikeness.errors import PictureError
from unlikeness.pictures import Picture, open_picture, save_picture
from unlikeness.pictures.formats.avif import colours_of
from unlikeness.pictures.formats.heif import Container, read_container
from unlikeness.pictures.formats.metadata import ANNOUNCED, CREDENTIALS, NOTE
from unlikeness.pictures.limits import Unusable

KINDS = ["avif", "heic"]


def encoded(kind: str, width: int = 192, height: int = 128, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture = image("RGB").resize((width, height))
    if kind == "avif":
        picture.save(buffer, "AVIF", **options)
    else:
        pillow_heif.from_pillow(picture).save(buffer, quality=90, **options)
    return buffer.getvalue()


def written(
    kind: str, folder: Path, *parts: Part, properties: tuple[bytes, ...] = (), behind: bytes = b""
) -> Path:
    """A file of an encoded picture with more properties, parts and boxes."""
    first = picture_part(encoded(kind))
    first = replace(first, properties=[*first.properties, *properties])
    source = folder / f"source.{kind}"
    source.write_bytes(assemble([first, *parts], kind.encode(), behind))
    return source


def saved(source: Path) -> tuple[Picture, Path]:
    picture = open_picture(source)
    target = source.with_name("target" + source.suffix)
    save_picture(picture, changed(picture), target, budget=8)
    assert open_picture(target).size == picture.size
    return picture, target


def container(path: Path) -> Container:
    return read_container(path.read_bytes())


def property_of(path: Path, kind: bytes) -> bytes | None:
    inside = container(path)
    found = [inside.data[b.start : b.end] for b in inside.properties_of(inside.primary) if b.kind == kind]
    assert len(found) < 2
    return found[0] if found else None


def exif_of(path: Path) -> bytes:
    inside = container(path)
    (number,) = inside.about_primary(b"Exif")
    return inside.content(number)


def camera_exif(orientation: int | None, thumbnail: bool = False) -> bytes:
    """With names beyond ASCII, which Pillow does not write again as they were, and a maker note."""
    tags: dict[str, Any] = {
        "0th": {
            0x010E: "Café in Åre".encode(),
            0x013B: "José Ångström".encode(),
            0x8298: "© Günther".encode("latin1"),
        },
        "Exif": {0x927C: b"MakerNote\0" + bytes(range(256)), 0x9286: b"UNICODE\0\xe9\0"},
        "GPS": {1: b"N"},
    }
    if orientation is not None:
        tags["0th"][0x0112] = orientation
    if thumbnail:
        tags |= {"1st": {0x0103: 6}, "thumbnail": small()}
    block: bytes = piexif.dump(tags)
    return block[6:]


def upright(block: bytes) -> bytes:
    """The same with an orientation of 1, by hand."""
    result = bytearray(block)
    order = "<" if block[:1] == b"I" else ">"
    at = block.index(struct.pack(order + "HHI", 0x0112, 3, 1))
    struct.pack_into(order + "H", result, at + 8, 1)
    return bytes(result)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prefix", [b"", b"Exif\0\0"])
@pytest.mark.parametrize("orientation", [None, 1, 6, 8])
def test_exif_keeps_every_byte_but_its_orientation(
    kind: str, prefix: bytes, orientation: int | None, tmp_path: Path
) -> None:
    block = camera_exif(orientation)
    item = struct.pack(">I", len(prefix)) + prefix + block
    source = written(kind, tmp_path, Part(b"Exif", item, references=[(b"cdsc", 1)]))
    picture, target = saved(source)
    assert picture.size == (192, 128)  # EXIF does not turn it, the container does
    assert picture.note is None
    neutral = block if orientation is None or kind == "heic" else upright(block)
    assert exif_of(target) == item[: 4 + len(prefix)] + neutral
    assert np.abs(open_picture(target).rgb - picture.rgb).mean() < 12 / 255


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("turn", [box(b"irot", b"\3"), box(b"imir", b"\1")])
def test_a_turn_of_the_container_is_kept_and_exif_with_it(kind: str, turn: bytes, tmp_path: Path) -> None:
    block = camera_exif(6)
    item = struct.pack(">I", 0) + block
    source = written(kind, tmp_path, Part(b"Exif", item, references=[(b"cdsc", 1)]), properties=(turn,))
    picture, target = saved(source)
    turned = turn[4:8] == b"irot"
    assert picture.size == ((128, 192) if turned else (192, 128))
    again = open_picture(target)
    assert np.abs(again.rgb - picture.rgb).mean() < 12 / 255
    if kind == "avif":
        assert property_of(target, turn[4:8]) == turn
        assert exif_of(target) == item[:4] + upright(block)
    else:
        assert exif_of(target) == item


@pytest.mark.parametrize("kind", KINDS)
def test_only_a_thumbnail_in_exif_is_removed(kind: str, tmp_path: Path) -> None:
    item = struct.pack(">I", 0) + camera_exif(3, thumbnail=True)
    source = written(kind, tmp_path, Part(b"Exif", item, references=[(b"cdsc", 1)]))
    picture, target = saved(source)
    assert picture.note == NOTE
    after = exif_of(target)
    assert len(after) == len(item)
    assert small() not in target.read_bytes()
    assert sum(a != b for a, b in zip(after, item, strict=True)) <= len(small()) + 5


@pytest.mark.parametrize(("primaries", "transfer"), [(9, 16), (9, 18), (12, 13), (1, 13), (11, 17), (9, 14)])
@pytest.mark.parametrize("said", ["container", "picture"])
def test_container_and_coded_avif_agree_on_its_colours(
    said: str, primaries: int, transfer: int, tmp_path: Path
) -> None:
    array = np.asarray(image("RGB").resize((64, 48)))
    data = bytes(
        imagecodecs.avif_encode(array, level=90, speed=10, primaries=primaries, transfer=transfer, matrix=6)
    )
    part = picture_part(data)
    assert colours_of(part.content) == (primaries, transfer)
    properties = [p for p in part.properties if p[4:12] != b"colrnclx"]
    if said == "container":
        properties.append(nclx(primaries, transfer))
    source = tmp_path / "source.avif"
    source.write_bytes(assemble([replace(part, properties=properties)], b"avif"))
    picture, target = saved(source)
    assert picture.note is None
    after = picture_part(target.read_bytes())
    assert colours_of(after.content) == (primaries, transfer)
    assert property_of(target, b"colr") == nclx(primaries, transfer)
    assert np.abs(open_picture(target).rgb - picture.rgb).mean() < 12 / 255


def test_colours_are_read_from_headers_of_any_length() -> None:
    """As cameras write them, with times and operating points, and behind other units."""
    bits = "00010" + "1" + f"{1:032b}{30:032b}" + "1" + "1" + "0" + "0" + "00001"
    bits += ("0" * 12 + "01000" + "0") * 2 + "01010101" + "000101" * 2 + "0"
    bits += "111" + "1111" + "1" + "11" + "0" + "1" + "0" + "1" + "011" + "000" + "1" + "0" + "1"
    bits += f"{9:08b}{16:08b}{9:08b}" + "1"
    body = int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big")
    unit = bytes([0x0A, len(body)]) + body
    assert colours_of(b"\x12\0" + unit + b"\x32\x01\0") == (9, 16)
    for end in range(len(unit)):
        colours_of(unit[:end])


@pytest.mark.parametrize("colours", [(9, 16), (12, 13), (1, 13)])
def test_container_and_coded_heic_agree_on_its_colours(colours: tuple[int, int], tmp_path: Path) -> None:
    """The coded picture has its colours behind its video format (H.265, E.2.1)."""
    first = picture_part(encoded("heic"))
    kept = [p for p in first.properties if p[4:8] != b"colr"]
    source = tmp_path / "source.heic"
    source.write_bytes(assemble([replace(first, properties=[*kept, nclx(*colours)])], b"heic"))
    _, target = saved(source)
    assert str(property_of(target, b"colr")) == str(nclx(*colours))
    settings = property_of(target, b"hvcC")
    assert settings is not None
    bits = "".join(f"{byte:08b}" for byte in settings.replace(b"\0\0\3", b"\0\0"))
    assert f"10111{colours[0]:08b}{colours[1]:08b}" in bits  # video format 5, full range, described


def test_a_heic_keeps_a_profile_beside_the_numbers_of_its_colours(tmp_path: Path) -> None:
    """libheif writes one of them."""
    first = picture_part(encoded("heic"))
    kept = [p for p in first.properties if p[4:8] != b"colr"]
    source = tmp_path / "source.heic"
    properties = [*kept, box(b"colr", b"prof", ICC), nclx(12, 13)]
    source.write_bytes(assemble([replace(first, properties=properties)], b"heic"))
    picture, target = saved(source)
    assert picture.note is None
    after = picture_part(target.read_bytes()).properties
    assert [p for p in after if p[4:8] == b"colr"] == [nclx(12, 13), box(b"colr", b"prof", ICC)]
    (settings,) = [p for p in after if p[4:8] == b"hvcC"]
    bits = "".join(f"{byte:08b}" for byte in settings.replace(b"\0\0\3", b"\0\0"))
    assert f"10111{12:08b}{13:08b}{6:08b}" in bits


@pytest.mark.parametrize("depth", [10, 12])
def test_the_bits_of_a_heic_s_samples_are_kept(
    depth: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pillow_heif.options, "SAVE_HDR_TO_12_BIT", depth == 12)
    array = np.asarray(samples(3, np.uint16))
    file = pillow_heif.from_bytes("RGB;16", array.shape[1::-1], array.tobytes())
    file.save(tmp_path / "source.heic", quality=90)
    monkeypatch.setattr(pillow_heif.options, "SAVE_HDR_TO_12_BIT", False)
    picture, target = saved(tmp_path / "source.heic")
    assert picture.note is None
    assert pillow_heif.open_heif(target, convert_hdr_to_8bit=False).info["bit_depth"] == depth


def test_an_icc_profile_stays_beside_the_colours(tmp_path: Path) -> None:
    first = picture_part(encoded("avif", icc_profile=ICC))
    source = tmp_path / "source.avif"
    source.write_bytes(assemble([first], b"avif"))
    _, target = saved(source)
    assert ICC in target.read_bytes()


LIGHT = box(b"clli", struct.pack(">HH", 1000, 400))


@pytest.mark.parametrize("kind", KINDS)
def test_the_shape_of_a_pixel_and_light_levels_are_kept(kind: str, tmp_path: Path) -> None:
    source = written(kind, tmp_path, properties=(pasp(4, 3), LIGHT, box(b"irot", b"\1")))
    picture, target = saved(source)
    assert picture.note is None
    assert property_of(target, b"pasp") == pasp(4, 3)
    assert property_of(target, b"clli") == LIGHT
    assert open_picture(target).note is None
    with Image.open(target) if kind == "avif" else pillow_heif.open_heif(target).to_pillow() as after:
        assert sorted(after.size) == [128, 192]


def test_the_crop_of_an_avif_is_kept_before_its_turn_and_noted(tmp_path: Path) -> None:
    crop = clap(100, 80, 20, -8)
    source = written("avif", tmp_path, properties=(pasp(2, 1), crop, box(b"irot", b"\1")))
    picture, target = saved(source)
    assert "crop to 100 × 80" in str(picture.note)
    inside = container(target)
    kinds = [b.kind for b in inside.properties_of(inside.primary)]
    assert kinds.index(b"pasp") < kinds.index(b"clap") < kinds.index(b"irot")
    assert property_of(target, b"clap") == crop
    assert property_of(target, b"irot") == box(b"irot", b"\1")


def test_the_crop_of_a_heic_is_applied_and_noted(tmp_path: Path) -> None:
    source = written("heic", tmp_path, properties=(clap(100, 80, 20, -8),))
    picture, target = saved(source)
    assert picture.size == (100, 80)
    assert "outside its crop to 100 × 80 pixels left out" in str(picture.note)
    assert open_picture(target).note is None


def test_padding_of_a_heic_encoder_is_not_noted(tmp_path: Path) -> None:
    for width, height in ((191, 127), (50, 40), (1, 1)):
        (tmp_path / "a.heic").write_bytes(encoded("heic", width, height))
        picture = open_picture(tmp_path / "a.heic")
        assert (picture.size, picture.note) == ((width, height), None)


def auxiliary(kind: str, name: str) -> Part:
    part = picture_part(encoded(kind, 64, 64))
    return replace(part, properties=[*part.properties, aux(name)], references=[(b"auxl", 1)])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("name", "said"),
    [(DEPTH, "depth map"), (GAIN_MAP, "gain map"), (MATTE, "matte"), ("urn:x", "auxiliary picture")],
)
def test_auxiliary_pictures_are_left_out_by_name(kind: str, name: str, said: str, tmp_path: Path) -> None:
    picture, target = saved(written(kind, tmp_path, auxiliary(kind, name)))
    assert picture.note == f"{said} in the file left out"
    assert open_picture(target).note is None


@pytest.mark.parametrize("kind", KINDS)
def test_thumbnails_further_pictures_and_other_metadata_are_left_out_by_name(
    kind: str, tmp_path: Path
) -> None:
    other = picture_part(encoded(kind, 64, 64))
    parts = [
        replace(other, references=[(b"thmb", 1)]),
        other,
        Part(b"mime", b"text", media=b"text/plain", references=[(b"cdsc", 1)]),
    ]
    picture, target = saved(written(kind, tmp_path, *parts))
    assert picture.note == "further metadata, further picture, thumbnail in the file left out"
    assert open_picture(target).note is None


def test_the_gain_map_of_a_tone_mapped_avif_is_no_further_picture(tmp_path: Path) -> None:
    other = picture_part(encoded("avif", 64, 64))
    tone_map = Part(b"tmap", bytes(30), references=[(b"dimg", 1), (b"dimg", 3)])
    picture, target = saved(written("avif", tmp_path, tone_map, other))
    assert picture.note == "gain map in the file left out"
    assert open_picture(target).note is None


@pytest.mark.parametrize("kind", KINDS)
def test_videos_and_unknown_boxes_are_left_out_by_name(kind: str, tmp_path: Path) -> None:
    for behind, said in (
        (box(b"mpvd", bytes(3000)), "video in the file left out"),
        (box(b"sefd", b"x"), "box sefd in the file left out"),
        (box(b"uuid", bytes.fromhex("d8fec3d61b0e483c92975828877ec481"), b"c2pa"), CREDENTIALS),
        (b"trailer!" * 9, "data behind the picture in the file left out"),
        (box(b"free", b"x"), None),
        (bytes(700), None),
    ):
        picture, target = saved(written(kind, tmp_path, behind=behind))
        assert picture.note == said
        assert open_picture(target).note is None


@pytest.mark.parametrize("kind", KINDS)
def test_xmp_keeps_its_bytes_and_announces_no_video(kind: str, tmp_path: Path) -> None:
    part = Part(b"mime", packet(), media=b"application/rdf+xml", references=[(b"cdsc", 1)])
    picture, target = saved(written(kind, tmp_path, part, behind=box(b"mpvd", bytes(300))))
    assert picture.note == f"video in the file left out; {ANNOUNCED}"
    assert plain() in target.read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_alpha_is_no_auxiliary_picture_that_is_left_out(kind: str, tmp_path: Path) -> None:
    source = tmp_path / f"source.{kind}"
    picture = image("RGBA").resize((192, 128))
    if kind == "avif":
        picture.save(source)
    else:
        pillow_heif.from_pillow(picture).save(source, quality=90)
    assert ALPHA.encode() in source.read_bytes() or b"auxid:1" in source.read_bytes()
    assert open_picture(source).note == "alpha coded with the picture, not exact"


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_ends_within_its_picture_is_refused(kind: str, tmp_path: Path) -> None:
    data = encoded(kind)
    inside = read_container(data)
    location = inside.locations[inside.primary]
    start = location.base + location.extents[0].offset
    length = location.extents[0].length
    for share in (0.1, 0.5, 0.9, 0.99):
        (tmp_path / "a").write_bytes(data[: start + int(share * length)])
        with pytest.raises(PictureError):
            open_picture(tmp_path / "a")
    (tmp_path / "a").write_bytes(data[: start + 200] + data[start + 700 :])
    with pytest.raises(PictureError):
        open_picture(tmp_path / "a")


@pytest.mark.parametrize("kind", KINDS)
def test_a_container_of_any_bytes_is_read_or_refused(kind: str) -> None:
    """Lengths and counts of every size, in every place of the boxes."""
    data = assemble([picture_part(encoded(kind)), auxiliary(kind, DEPTH)], kind.encode())
    end = data.index(b"mdat")
    refused = 0
    for at in range(end):
        for value in (0, 1, 0x7F, 0xFF):
            spoilt = data[:at] + bytes([value]) + data[at + 1 :]
            try:
                found = read_container(spoilt)
                for number in found.items:
                    found.content(number)
                    found.properties_of(number)
            except Unusable:
                refused += 1
    assert refused > 20


def test_more_bits_of_an_avif_than_are_written_are_noted(tmp_path: Path) -> None:
    array = (samples(3, np.uint16) >> 6).astype(np.uint16)
    (tmp_path / "a.avif").write_bytes(bytes(imagecodecs.avif_encode(array, level=95, bitspersample=10)))
    assert "10-bit AVIF written with 8 bits" in str(open_picture(tmp_path / "a.avif").note)
