"""What does the page of `unlikeness page` cost in Chromium, without a graphics card?

    python -m benchmarks.browser_page --onnxruntime build/onnxruntime-web-1.30.0.tgz

CPU time of the page's process from the button to the finished list, with the network loaded before: a busy
machine changes it little. The largest memory of that process, and of the whole browser. The longest time in
which the page answered nothing. Needs `make browser`.
"""

from __future__ import annotations

import functools
import http.server
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from benchmarks import common
from benchmarks.memory import peak_memory
from unlikeness.errors import UnlikenessError
from unlikeness.page.build import build_page
from unlikeness.protect.rid.train.pictures import dead_leaves

NAME = "browser_page"
PICTURES = {"512 × 512 JPEG": (512, 512), "6000 × 4000 JPEG": (6000, 4000), "6000 × 4000 PNG": (6000, 4000)}
NO_NETWORK = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
GAP = """() => {
    let last = performance.now();
    window.longest = 0;
    setInterval(() => {
        window.longest = Math.max(window.longest, performance.now() - last);
        last = performance.now();
    }, 20);
}"""


def cli(argv: Sequence[str] | None) -> None:
    parser = common.parser(__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--onnxruntime", type=Path, help="as of `unlikeness page`")
    args = parser.parse_args(argv)
    about = {"seed": args.seed, "quick": args.quick}
    results = common.Results(common.results_file(NAME, args), NAME, about, fresh=args.fresh, keep=args.keep)
    with tempfile.TemporaryDirectory() as held, opened() as browser:
        folder = Path(held)
        with served(folder, args.onnxruntime) as url:
            for name, size in list(PICTURES.items())[: 1 if args.quick else None]:
                file = picture(folder, size, name.split()[-1].lower(), args.seed)
                results.cell(name, functools.partial(measured, browser, url, file))
    results.finish({})
    print(render(results.record))


@contextmanager
def served(folder: Path, runtime: Path | None) -> Iterator[str]:
    """The address of a page with the default network."""
    build_page(folder / "page", runtime=runtime)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder / "page"))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


@contextmanager
def opened() -> Iterator[Browser]:
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        raise UnlikenessError("there is no Chromium; run `make browser`")
    with sync_playwright() as started:
        arguments = ["--no-sandbox", NO_NETWORK]
        browser = started.chromium.launch(executable_path=program, args=arguments)
        yield browser
        browser.close()


def picture(folder: Path, size: tuple[int, int], suffix: str, seed: int) -> Path:
    """A picture of edges, textures and a little noise."""
    random = np.random.default_rng(seed)
    leaves = Image.fromarray(dead_leaves(random, 512)).resize(size, Image.Resampling.BICUBIC)
    noisy = np.asarray(leaves, np.int16) + random.integers(-4, 5, (*size[::-1], 3), np.int16)
    path = folder / f"{size[0]}.{suffix}"
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path, quality=92)
    return path


def measured(browser: Browser, url: str, file: Path) -> dict[str, Any]:
    """A first small picture loads the network; then `file` counts."""
    context = browser.new_context()
    page = context.new_page()
    page.set_default_timeout(900_000)
    page.goto(url)
    page.wait_for_selector("html[data-settled]")
    page.wait_for_timeout(1000)
    small = picture(file.parent, (64, 64), "png", 0)
    protect(page, small)
    page.evaluate(GAP)
    family = [one for one in psutil.Process().children(recursive=True) if "chromium" in one.name()]
    renderer = max((one for one in family if "--type=renderer" in one.cmdline()), key=resident)
    root = next(one for one in family if not any(word.startswith("--type=") for word in one.cmdline()))
    before = renderer.cpu_times()
    with peak_memory(renderer) as own, peak_memory(root) as whole:
        protect(page, file)
        after = renderer.cpu_times()
        page.wait_for_timeout(3000)  # the comparison is drawn
    gap = page.evaluate("window.longest")
    context.close()
    cpu = after.user + after.system - before.user - before.system
    return {
        "cpu": round(cpu, 1), "page_mib": round(own[0]), "browser_mib": round(whole[0]),
        "longest_gap_ms": round(gap),
    }  # fmt: skip


def resident(process: psutil.Process) -> int:
    found: int = process.memory_info().rss
    return found


def protect(page: Page, file: Path) -> None:
    page.set_input_files("#files", file)
    page.click("#start")
    page.wait_for_selector("#progress:has-text('Nothing left')")


def render(record: Mapping[str, Any]) -> str:
    """The table of docs/performance.md."""
    rows = [
        [name, f"{cell['cpu']:.1f}", cell["page_mib"], cell["browser_mib"], cell["longest_gap_ms"]]
        for name, cell in record["cells"].items()
    ]
    head = ["picture", "CPU time [s]", "page's memory [MiB]", "browser's [MiB]", "longest pause [ms]"]
    said = "Two cores, WebAssembly, on a machine that was busy with other work."
    return f"{common.table(head, rows)}\n\n{said}"


if __name__ == "__main__":
    common.main(cli)
