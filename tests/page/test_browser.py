"""The page in Chromium: the pictures of `protect`, no request elsewhere, offline, small windows, keyboard."""

from __future__ import annotations

import io
import json
import urllib.request
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import piexif
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo
from tests.page.conftest import Served

from unlikeness.cli import main

WIDTH, HEIGHT = 150, 90
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><title>Dog</title></x:xmpmeta>'
ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def pixels(channels: int, top: int = 255) -> NDArray[Any]:
    """Textures, an edge and a flat part."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    waves = [np.sin(x / (3 + c)) * np.cos(y / (5 - c)) * 60 + 128 + x / 5 for c in range(3)]
    grain = np.random.default_rng(0).normal(0, 12, (HEIGHT, WIDTH, 3))
    colours = np.stack(waves, 2) + grain
    colours[20:50, 20:60] = (200, 120, 40)
    alpha = np.broadcast_to((x * 255 / WIDTH)[..., None], (HEIGHT, WIDTH, 1))
    whole = np.concatenate([colours if channels > 2 else colours[..., :1], alpha], 2)[..., :channels]
    values: NDArray[Any] = np.clip(whole, 0, 255) * (top / 255)
    return values.astype(np.uint16 if top > 255 else np.uint8)


def exif(orientation: int) -> bytes:
    """With a thumbnail of the picture."""
    small = io.BytesIO()
    Image.fromarray(pixels(3)).resize((60, 36)).save(small, "JPEG")
    first = {piexif.ImageIFD.Orientation: orientation, piexif.ImageIFD.Artist: "José Ångström".encode()}
    entries = {"0th": first, "1st": {piexif.ImageIFD.Compression: 6}, "thumbnail": small.getvalue()}
    written: bytes = piexif.dump(entries)
    return written


def save_deep(path: Path) -> None:
    """RGB of 16 bits, which Pillow does not write."""
    import imagecodecs

    path.write_bytes(imagecodecs.png_encode(pixels(3, 65535)))


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("pictures") / "in"
    (made / "sub").mkdir(parents=True)
    rgb, rgba = Image.fromarray(pixels(3)), Image.fromarray(pixels(4))
    text = PngInfo()
    text.add_itxt("XML:com.adobe.xmp", XMP.decode())
    text.add_text("Author", "nobody")
    rgb.save(made / "rgb.png", exif=exif(6), icc_profile=ICC, pnginfo=text)
    rgba.save(made / "sub" / "rgba.png")
    Image.fromarray(pixels(1)[..., 0]).save(made / "grey.png")
    rgb.quantize(64).save(made / "palette.png", transparency=3)
    save_deep(made / "deep.png")
    rgb.save(made / "exact.webp", lossless=True, exact=True, exif=exif(1), icc_profile=ICC, xmp=XMP)
    rgb.save(made / "lossy.webp", quality=90, exif=exif(3), xmp=XMP)
    for name, sampling in (("full.jpg", 0), ("half.jpg", 1), ("quarter.JPG", 2)):
        extra = {"exif": exif(8), "icc_profile": ICC, "xmp": XMP, "comment": b"a comment"}
        rgb.save(made / name, "JPEG", quality=91, subsampling=sampling, **extra)
    Image.fromarray(pixels(1)[..., 0]).save(made / "grey.jpg", quality=95)
    return made


@pytest.fixture(scope="session")
def refused(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, str]:
    """Files that the page refuses, and a word of its reason."""
    made = tmp_path_factory.mktemp("refused")
    Image.new("CMYK", (40, 30)).save(made / "inks.jpg")
    whole = io.BytesIO()
    Image.fromarray(pixels(3)).save(whole, "JPEG")
    (made / "cut.jpg").write_bytes(whole.getvalue()[:2000])
    (made / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    (made / "scan.tif").write_bytes(b"II*\0" + bytes(40))
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    frames[0].save(made / "moving.webp", save_all=True, append_images=frames[1:])
    frames[0].save(made / "moving.png", save_all=True, append_images=frames[1:])
    Image.fromarray(pixels(4)).save(made / "clear.webp", lossless=True)
    (made / "letter.png").write_bytes(b"Dear reader")
    (made / "wrong.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40))
    words = {
        "inks.jpg": "CMYK", "cut.jpg": "truncated", "phone.heic": "HEIC", "scan.tif": "TIFF",
        "moving.webp": "animations", "moving.png": "animations", "clear.webp": "transparency",
        "letter.png": "no picture", "wrong.png": "damaged",
    }  # fmt: skip
    return {made / name: word for name, word in words.items()}


def opened(context: Any, served: Served) -> Any:
    context.set_default_timeout(180_000)
    tab = context.new_page()
    tab.goto(served.url)
    tab.wait_for_selector("html[data-settled]")
    return tab


def protected(tab: Any) -> dict[str, bytes]:
    """Press the button, wait, and download; the files by their paths."""
    tab.click("#start")
    tab.wait_for_selector("#progress:has-text('Nothing left')")
    with tab.expect_download() as download:
        tab.click("#all")
    with zipfile.ZipFile(download.value.path()) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="session")
def tab(browser: Any, served: Served) -> Any:
    context = browser.new_context()

    def record(request: Any) -> None:
        if not request.url.startswith((served.url, f"blob:{served.url}", "data:")):
            served.contacts.append(request.url)

    context.on("request", record)  # of pages, workers and the service worker
    return opened(context, served)


@pytest.fixture(scope="session")
def results(tab: Any, folder: Path, refused: dict[Path, str]) -> dict[str, bytes]:
    """What the page makes of all pictures."""
    tab.set_input_files("#folder", folder)
    tab.set_input_files("#files", list(refused))
    return protected(tab)


@pytest.fixture(scope="session")
def expected(folder: Path, page: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `unlikeness protect` makes of the same pictures with the page's network."""
    output = tmp_path_factory.mktemp("expected") / "out"
    assert main(["protect", str(folder), "-o", str(output), "--weights", str(page / "small.onnx"), "-q"]) == 0
    return output


def shown(data: bytes | Path) -> NDArray[Any]:
    import imagecodecs

    data = data.read_bytes() if isinstance(data, Path) else data
    if data[24:26] == b"\x10\x02":  # a PNG of 16 bits a colour
        return np.asarray(imagecodecs.png_decode(data)).astype(float)
    image = Image.open(io.BytesIO(data))
    return np.asarray(image).astype(float)


@pytest.mark.parametrize(
    "name", ["rgb.png", "sub/rgba.png", "grey.png", "palette.png", "deep.png", "exact.webp"]
)
def test_lossless_pictures_are_those_of_protect(
    name: str, results: dict[str, bytes], folder: Path, expected: Path
) -> None:
    ours, theirs = shown(results[f"in/{name}"]), shown(expected / name)
    assert ours.shape == theirs.shape
    assert abs(ours - theirs).max() <= 1
    before = shown(folder / name)
    if before.shape == ours.shape:
        top = 257 if name == "deep.png" else 1
        assert top <= abs(ours - before).max() <= 8 * top


@pytest.mark.parametrize("name", ["full.jpg", "half.jpg", "quarter.JPG", "grey.jpg"])
def test_a_jpeg_is_that_of_protect_up_to_its_compression(
    name: str, results: dict[str, bytes], expected: Path
) -> None:
    ours, theirs = Image.open(io.BytesIO(results[f"in/{name}"])), Image.open(expected / name)
    assert ours.quantization == theirs.quantization  # type: ignore[attr-defined]
    sampling = [[part[1:3] for part in one.layer] for one in (ours, theirs)]  # type: ignore[attr-defined]
    assert sampling[0] == sampling[1]
    for kind in ("exif", "icc_profile", "comment", "xmp"):
        assert ours.info.get(kind) == theirs.info.get(kind), kind
        assert kind in ours.info or name == "grey.jpg"
    assert abs(shown(results[f"in/{name}"]) - shown(expected / name)).mean() < 0.75


def test_metadata_stay_and_thumbnails_go(results: dict[str, bytes], expected: Path) -> None:
    for name in ("rgb.png", "exact.webp", "lossy.webp"):
        ours, theirs = Image.open(io.BytesIO(results[f"in/{name}"])), Image.open(expected / name)
        for kind in ("exif", "icc_profile", "xmp", "Author", "XML:com.adobe.xmp"):
            assert ours.info.get(kind) == theirs.info.get(kind), (name, kind)
        assert piexif.load(ours.info["exif"])["thumbnail"] is None
    entries = {line["path"]: line for line in map(json.loads, results["manifest.jsonl"].splitlines())}
    assert "thumbnail" in entries["in/full.jpg"]["note"]


def test_a_lossy_webp_is_about_that_of_protect(results: dict[str, bytes], expected: Path) -> None:
    assert abs(shown(results["in/lossy.webp"]) - shown(expected / "lossy.webp")).mean() < 1.5


def test_the_manifest_is_that_of_protect(results: dict[str, bytes], expected: Path) -> None:
    ours = {line["path"]: line for line in map(json.loads, results["manifest.jsonl"].splitlines())}
    for line in map(json.loads, (expected / "manifest.jsonl").read_text().splitlines()):
        own = ours[f"in/{line['path']}"]
        assert set(own) == set(line)
        for key in ("status", "input_digest", "width", "height", "bytes_in", "lossless", "against"):
            assert own[key] == line[key], (line["path"], key)
        assert abs(own["psnr"] - line["psnr"]) < 0.3
        given = {**line["recipe"], "engine": "onnxruntime-web"}
        given["settings"] = {**given["settings"], "weights": "small.onnx"}
        assert own["recipe"] == given


def test_what_cannot_be_protected_is_refused_in_plain_words(
    results: dict[str, bytes], tab: Any, refused: dict[Path, str]
) -> None:
    rows = {row.query_selector(".name").inner_text(): row for row in tab.query_selector_all("#list li")}
    lines = {line["path"]: line for line in map(json.loads, results["manifest.jsonl"].splitlines())}
    for path, word in refused.items():
        said = rows[path.name].query_selector(".state").inner_text()
        assert word in said
        assert lines[path.name]["status"] == "skipped"
        assert lines[path.name]["reason"] == said
        assert path.name not in results


def test_a_comparison_is_shown(results: dict[str, bytes], tab: Any) -> None:
    for name in ("before", "after", "change"):
        picture = tab.locator(f"#{name}-picture")
        picture.scroll_into_view_if_needed()
        assert picture.get_attribute("alt")
        assert picture.evaluate("one => one.decode().then(() => one.naturalWidth)") > 0
    tab.locator("#slider").focus()
    before = tab.locator("#slider").input_value()
    tab.keyboard.press("ArrowRight")
    assert int(tab.locator("#slider").input_value()) == int(before) + 1


def test_no_request_leaves_the_page(results: dict[str, bytes], tab: Any, served: Served) -> None:
    assert served.contacts == []
    assert tab.evaluate("fetch('http://192.0.2.1/').then(() => 'sent', () => 'refused')") == "refused"
    assert served.contacts == []


def test_psnr_and_stop(tab: Any, served: Served, folder: Path) -> None:
    tab = opened(tab.context, served)
    tab.set_input_files("#files", [folder / "rgb.png"])
    tab.check("input[value=faint]")
    (line,) = map(json.loads, protected(tab)["manifest.jsonl"].splitlines())
    assert line["recipe"]["psnr"] == 40
    assert line["psnr"] >= 39.5
    assert tab.is_disabled("#start")
    tab.check("input[value=strong]")  # the same picture once more
    (line,) = map(json.loads, protected(tab)["manifest.jsonl"].splitlines())
    assert "psnr" not in line["recipe"]
    assert line["recipe"]["settings"]["budget"] == 12
    assert 8 < line["linf"] <= 12
    tab.set_input_files("#files", [folder / "rgb.png"])  # the same name again
    assert tab.inner_text("#list li:nth-child(2) .name") == "rgb (2).png"
    tab.evaluate("for (const one of ['start', 'stop']) document.getElementById(one).click()")  # at once
    tab.wait_for_selector("#progress:has-text('Nothing left')")
    assert tab.inner_text("#list li:nth-child(2) .state") == "waiting"
    assert len(protected(tab)) == 3
    tab.close()


def test_the_page_fits_its_window_and_the_keyboard(
    results: dict[str, bytes], tab: Any, served: Served
) -> None:
    for width in (360, 768, 1440):
        tab.set_viewport_size({"width": width, "height": 800})
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
    unnamed = """() => Array.from(document.querySelectorAll("button, input, img, a")).filter(
        ({textContent, labels, ariaLabel, alt}) => !(textContent.trim() || labels?.length || ariaLabel || alt)
    ).map((one) => one.outerHTML)"""
    assert tab.evaluate(unnamed) == []
    tab = opened(tab.context, served)
    reached = set()
    for _ in range(8):
        tab.keyboard.press("Tab")
        reached.add(tab.evaluate("document.activeElement.id || document.activeElement.name"))
    assert {"files", "folder", "strength"} <= reached
    tab.close()


def test_the_page_works_without_a_network(
    results: dict[str, bytes], tab: Any, served: Served, folder: Path
) -> None:
    """Last, since the server stops here."""
    served.stop()
    with pytest.raises(OSError):
        urllib.request.urlopen(served.url, timeout=5)
    tab.reload()
    tab.wait_for_selector("html[data-settled]")
    tab.set_input_files("#files", [folder / "rgb.png"])
    assert protected(tab)["rgb.png"] == results["in/rgb.png"]
    assert served.contacts == []
