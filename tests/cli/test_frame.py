"""The command line's manners: one line for an error, the right exit status, no traceback."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import typer

from unlikeness import __version__
from unlikeness.cli import main, verbs
from unlikeness.errors import PictureError, UnlikenessError, UsageError


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"unlikeness {__version__}\n"


def test_no_arguments_show_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "measure" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["mesure"], "'measure'"),  # a near miss is recognised
        (["--colour"], "--colour"),
        (["measure", "visibility"], "ORIGINAL"),
        (["measure", "--jsn", "a", "b"], "--json"),
        (["measure", "similarity", "--subject", "a"], "--generated"),
        (["measure", "no-such-a", "no-such-b"], "no-such-a"),
        (["measure", "a", "b", "--seed", "many"], "--seed"),
        (["generate", "--model", "a", "--model=b"], "--model is given twice, and it takes one value"),
        (["protect", "a", "-oone", "--output", "two"], "--output is given twice"),
        (["protect", "a", "-o", "one", "-o", "two"], "-o is given twice"),
        (["protect", "a", "-o", "one", "--mask", "b", "--mask", "c"], "--mask is given twice"),
        (["purify", "a", "-o", "b", "--method", "jpeg", "--method", "blur"], "--method is given twice"),
        (["verify", "a", "--attackers", "paper", "--attackers", "lora-4"], "--attackers is given twice"),
    ],
)
def test_misuse_exits_2_with_one_line_that_names_it(
    arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert named in err


def test_misuse_from_the_shell() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "unlikeness", "measure", "nothing-here", "nor-here"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("unlikeness: nothing-here: no such file or folder")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (UsageError("budget: no"), 2, "unlikeness: budget: no\n"),
        (UnlikenessError("the training\ndiverged"), 1, "unlikeness: the training diverged\n"),
        (PictureError("a.jpg: truncated"), 1, "unlikeness: a.jpg: truncated\n"),
        (
            OSError(28, "No space left on device", "out.png"),
            1,
            "unlikeness: out.png: No space left on device\n",
        ),
        (MemoryError(), 1, None),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"), 1, None),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory.\nTried"), 1, None),
        (KeyboardInterrupt(), 130, "unlikeness: interrupted\n"),
    ],
)
def test_errors_of_a_verb_become_one_line(
    error: BaseException,
    status: int,
    line: str | None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(verbs, "app_of", lambda: app_that_raises(error))
    assert main(["verb"]) == status
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert line is None or err == line


def test_other_faults_of_the_program_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verbs, "app_of", lambda: app_that_raises(RuntimeError("a fault")))
    with pytest.raises(RuntimeError, match="a fault"):
        main(["verb"])


def test_a_terminal_that_knows_few_signs_gets_what_it_can_show() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "unlikeness", "measure", "visibility", "--help"],
        capture_output=True,
        timeout=60,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert done.returncode == 0, done.stderr
    assert b"L\\u221e" in done.stdout


def test_a_developer_can_ask_for_the_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(verbs, "app_of", lambda: app_that_raises(UsageError("budget: no")))
    monkeypatch.setenv("UNLIKENESS_TRACEBACK", "1")
    assert main(["verb"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_a_verb_chooses_its_own_exit_status(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verbs, "app_of", lambda: app_that_raises(typer.Exit(1)))
    assert main(["verb"]) == 1


def app_that_raises(error: BaseException) -> typer.Typer:
    app = typer.Typer(add_completion=False)

    @app.callback()
    def frame() -> None:
        pass

    @app.command()
    def verb() -> None:
        raise error

    return app
