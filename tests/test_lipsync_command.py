"""`syncdisc lipsync`, and how commands of other packages join."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from painted import (
    H,
    Painter,
    W,
    bursts,
    picture,
    write_wav,
)

from syncdisc_plugin.media import write_video


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """1.6 s at 25 fps, without sound."""
    return write_video(tmp_path / "v.mp4", map(picture, range(40)), crf=4)


@pytest.fixture
def wav(tmp_path: Path) -> Path:
    return write_wav(tmp_path / "a.wav", bursts(1.6))


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """`syncdisc lipsync` in this process, with the painter: status, printed, complained."""
    from generator_integration.reference import generator
    from syncdisc_plugin.cli import main

    monkeypatch.setattr(generator, "load_generator", lambda ref, device: Painter())

    def call(*argv: object) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            status = main(["lipsync", *map(str, argv)])
        except SystemExit as stop:
            status = int(stop.code or 0)
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return call


Command = Callable[..., tuple[int, str, str]]


def test_the_command(command: Command, video: Path, tmp_path: Path) -> None:
    audio = write_wav(tmp_path / "a.wav", bursts(1.0))
    paths = ["--video", video, "--audio", audio, "--out", tmp_path / "out.mp4"]
    status, out, err = command(*paths, "--detector", "none", "--device", "cpu")
    assert status == 0, err
    assert out == f"25 frames (25 with new lips), 1.00 s, {W}x{H} -> {tmp_path / 'out.mp4'}\n"
    assert "shorter than the video" in err
    status, out, err = command("--video", video, "--audio", video, "--out", tmp_path / "o.mp4")
    assert (status, out) == (2, "") and err.count("\n") == 1
    assert err.startswith("syncdisc lipsync: ") and "no audio stream" in err


def test_the_commands_help(command: Command) -> None:
    status, out, err = command("--help")
    assert (status, err) == (0, "")
    for flag in ("--video", "--audio", "--out", "--generator", "--face", "--only", "--extend",
                 "--detector", "--models", "--track.every"):  # fmt: skip
        assert flag in out
    for flag in ("--workers", "--speakers", "--track.max_frames"):  # which are not read
        assert flag not in out


def test_the_overview_lists_it(capsys: pytest.CaptureFixture[str]) -> None:
    from syncdisc_plugin.cli import main

    assert main(["--help"]) == 0
    (line,) = [r for r in capsys.readouterr().out.splitlines() if r.startswith("  lipsync ")]
    assert "lips that say it" in line


def test_a_command_of_a_broken_package(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from importlib.metadata import EntryPoint

    from syncdisc_plugin import cli

    broken = EntryPoint("sing", "no_such_package.song:sing", cli.ENTRY_POINTS)
    ours = EntryPoint("score", "no_such_package.song:score", cli.ENTRY_POINTS)
    monkeypatch.setattr(cli, "entry_points", lambda group: [broken, ours])
    assert cli.main(["sing"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and err.startswith(
        "syncdisc sing: no_such_package.song:sing cannot"
    )
    assert cli.main(["--help"]) == 0
    out = capsys.readouterr().out
    assert "  sing      cannot be loaded (ModuleNotFoundError" in out
    assert out.count("  score ") == 1
    assert cli.main(["dance"]) == 2
    assert "export, report, sing." in capsys.readouterr().err


def test_looking_at_commands_loads_no_torch() -> None:
    code = (
        "import sys; import generator_integration.reference.command; "
        "print({'torch', 'av', 'cv2', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "set()", done.stderr
