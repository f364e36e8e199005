"""What the README says is run: its Python, its commands and the links it makes."""

from __future__ import annotations

import re
import shlex
import subprocess
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import torch

from syncdisc_plugin import cli

ROOT = Path(__file__).parent.parent
PAGES = ["README.md", "generator_integration/README.md", "CONTRIBUTING.md"]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def _blocks(page: str, language: str) -> list[str]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.S)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert (ROOT / page).parent.joinpath(target).exists(), target


@pytest.mark.parametrize("page", ["README.md", "generator_integration/README.md"])
def test_the_python_runs(page: str) -> None:
    """Block after block, as one would read them: names of earlier blocks are there."""
    blocks = _blocks(page, "python")
    assert blocks
    names: dict[str, object] = {"device": "cpu"}
    for block in blocks:
        frames = torch.rand(2, 3, 5, 96, 96, requires_grad=True)
        mel = torch.zeros(2, 1, 80, 16)
        names |= {"frames": frames, "generated": frames, "mel": mel, "recon": frames.mean()}
        names |= {"step": 1000, "total_steps": 2000}
        names |= {"loss": frames.mean(), "loader": [(frames.detach(), mel)]}
        exec(block, names)
        if "loss =" in block:
            names["loss"].backward()  # type: ignore[attr-defined]
            assert frames.grad is not None and torch.isfinite(frames.grad).all()


def test_every_command_exists_and_is_listed() -> None:
    listed = set(re.findall(r"^syncdisc (\w+)", README, flags=re.M))
    joined = {point.name for point in entry_points(group=cli.ENTRY_POINTS)}
    assert "lipsync" in joined and listed == {*cli.VERBS, *joined}


def test_flags_in_commands_exist(capsys: pytest.CaptureFixture[str]) -> None:
    for line in re.findall(r"^syncdisc .*", README, flags=re.M):
        words = shlex.split(line.split("   ")[0])
        with pytest.raises(SystemExit):
            cli.main([words[1], "--help"])
        text = capsys.readouterr().out
        for flag in [w for w in words if w.startswith("--")]:
            assert flag in text, line


def test_make_knows_the_commands() -> None:
    for line in re.findall(r"^make (\w+)", README, flags=re.M):
        made = subprocess.run(["make", "-n", line], cwd=ROOT, capture_output=True, text=True)
        assert made.returncode == 0, made.stderr
