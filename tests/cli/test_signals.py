"""Ctrl-C and other signals at any moment: one line, the shell's status, within a second, nothing left behind.

The seconds are those of the machine on which the tests run, which may be busy: what is tested is that the
process does not wait for the call that it is in, which takes a minute.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from unlikeness.files import is_temporary

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals of another kind")

FRAME = """
import hashlib, sys, threading, time
from contextlib import ExitStack
from pathlib import Path
import typer
from unlikeness.cli import main, verbs

app = typer.Typer(add_completion=False)

@app.callback()
def frame() -> None: ...

def long_call() -> None:
    "Tens of seconds in a library, without a look at signals."
    hashlib.pbkdf2_hmac("sha256", b"p", b"s", 10**8)

def ready() -> None:
    print("ready", flush=True)

@app.command()
def verb() -> None:
{body}

verbs.app_of = lambda *_: app
sys.argv = ["unlikeness", "verb"]
sys.exit(main())
"""

BODIES = {
    "asleep": "ready(); time.sleep(60)",
    "in a long call": "ready(); long_call()",
    "swallowed": "ready()\ntry: time.sleep(60)\nexcept BaseException: time.sleep(60)",
    "waiting for a thread": (
        "from unlikeness.protect.tiling.batches import overlapped\n"
        "ready(); list(overlapped(lambda _: long_call(), [1, 2, 3]))"
    ),
    "while a thread is left": "threading.Thread(target=long_call).start(); ready(); time.sleep(60)",
    "saving": (
        "from unlikeness import locks\n"
        "from unlikeness.files import replacing\n"
        "with locks.inside(Path('out')), replacing(Path('out/state')) as part:\n"
        "    part.write_bytes(b'half'); ready(); long_call()"
    ),
}


def started(body: str, folder: Path) -> subprocess.Popen[str]:
    """The command line around a verb with this body, which is ready for a signal when this returns."""
    code = FRAME.replace("{body}", "\n".join(f"    {line}" for line in body.splitlines()))
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heard,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n", process.communicate()[1]
    return process


def heard() -> None:
    """Signals as at a terminal, whatever the tests run under."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_ctrl_c_ends_a_run_wherever_it_is(body: str, tmp_path: Path) -> None:
    process = started(body, tmp_path)
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (130, "", "unlikeness: interrupted\n")
    assert time.monotonic() - began < 15
    assert not list(tmp_path.rglob("*"))


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_to_end_clears_up_too(number: signal.Signals, status: int, tmp_path: Path) -> None:
    process = started(BODIES["saving"], tmp_path)
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (status, "unlikeness: terminated\n")
    assert not list(tmp_path.rglob("*"))


def test_a_signal_that_is_ignored_stays_so() -> None:
    code = "import signal, os, sys, unlikeness.cli as cli; from unlikeness.cli import verbs; " + (
        "verbs.check_words = lambda _: os.kill(os.getpid(), signal.SIGHUP); "
        "sys.argv[1:] = ['--version']; sys.exit(cli.main())"
    )
    ignoring = f'trap "" HUP; exec "{sys.executable}" -c "$1"'
    done = subprocess.run(["sh", "-c", ignoring, "sh", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout


@pytest.mark.parametrize("module", ["typer", "unlikeness.protect.files.targets", "onnxruntime", "numpy"])
def test_an_interrupt_while_modules_are_imported_is_one_line(module: str, tmp_path: Path) -> None:
    """A finder sends the signal when the module is looked for."""
    (tmp_path / "a.png").write_bytes(b"no picture")
    code = f"""
import os, signal, sys
class Finder:
    def find_spec(name, path=None, target=None):
        if name == {module!r}:
            sys.meta_path.remove(Finder)
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder)
sys.argv = ["unlikeness", "protect", "a.png", "-o", "out"]
from unlikeness.cli import main
sys.exit(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, preexec_fn=heard,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (130, "unlikeness: interrupted\n")


CHILDREN = """
import sys, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
import os
from unlikeness.endings import follow_parent

if __name__ == "__main__":
    with ProcessPoolExecutor(2, get_context("spawn"), follow_parent) as pool:
        print(*{pool.submit(os.getpid).result() for _ in range(9)})
        sys.stdout.flush()
        time.sleep(60)
"""


def test_processes_that_share_the_work_end_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    (tmp_path / "pool.py").write_text(CHILDREN)
    parent = subprocess.Popen([sys.executable, "pool.py"], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    children = [int(word) for word in parent.stdout.readline().split()]
    assert children
    parent.kill()
    parent.wait()
    until = time.monotonic() + 30
    while any(running(child) for child in children):
        assert time.monotonic() < until
        time.sleep(0.05)


def running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"


PROTECTING = """
import sys, time
from pathlib import Path
from unlikeness.cli import main
from unlikeness.protect.files import worker

real = worker.save_picture
def held(*arguments, **options):
    real(*arguments, **options)
    print("ready", flush=True)
    time.sleep(60)

worker.save_picture = held
sys.argv = ["unlikeness", "protect", "in", "-o", "out", "-q"]
sys.exit(main())
"""


def test_two_runs_on_one_output_and_a_kill(tmp_path: Path) -> None:
    """The first one is held with a half-written picture; the second is refused, and goes on after its end."""
    from tests.protect.test_tiles import write

    (tmp_path / "in").mkdir()
    write(tmp_path / "in" / "a.png", 40, 30)
    first = subprocess.Popen(
        [sys.executable, "-c", PROTECTING], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, preexec_fn=heard,
    )  # fmt: skip
    assert first.stdout is not None
    assert first.stdout.readline() == "ready\n", first.communicate()[1]
    command = [sys.executable, "-m", "unlikeness", "protect", "in", "-o", "out", "-q"]
    waiting = [path for path in (tmp_path / "out").iterdir() if is_temporary(path.name)]
    second = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert second.returncode == 1
    assert f"another run (process {first.pid}, since " in second.stderr
    assert "writes into out; wait for it or name another --output" in second.stderr
    assert waiting
    assert all(path.exists() for path in waiting)
    first.kill()
    first.wait()
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert again.returncode == 0, again.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "manifest.jsonl"]


BAR = """from unlikeness.progress import on_stderr
with on_stderr() as progress:
    progress.start(10, "working"); long_call()"""


def test_a_bar_that_is_ended_at_once_gives_the_cursor_back() -> None:
    import pty

    code = FRAME.replace("{body}", "\n".join(f"    {line}" for line in BAR.splitlines()))
    pid, terminal = pty.fork()
    if pid == 0:
        heard()
        os.execv(sys.executable, [sys.executable, "-c", code])
    shown, sent = b"", False
    while True:
        try:
            part = os.read(terminal, 4096)
        except OSError:  # what Linux says at the end
            break
        if not part:
            break
        shown += part
        if b"working" in shown and not sent:
            sent = True
            os.write(terminal, b"\x03")
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 130
    hidden, given_back = shown.rfind(b"\x1b[?25l"), shown.rfind(b"\x1b[?25h")
    assert 0 <= hidden < given_back
    assert shown.endswith(b"unlikeness: interrupted\r\n")
