"""The wheel: built from this checkout, installed beside nothing of it, with the weights inside."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import syncdisc_plugin

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[1]
BASE = "syncdisc-base.safetensors"


def call(*argv: object, cwd: Path, **env: str) -> str:
    """Run a command that must succeed; returns what it printed."""
    done = subprocess.run(
        [sys.executable, *map(str, argv)],
        cwd=cwd,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    call("-m", "build", "--wheel", "--no-isolation", "--outdir", out, ROOT, cwd=out)
    (path,) = out.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the unpacked wheel and none of its dependencies."""
    target = tmp_path_factory.mktemp("installed") / "site"
    pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    call(*pip, "--no-deps", "--no-index", "--target", target, wheel, cwd=target.parent)
    return target


def test_what_is_in_the_wheel(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    sources = {
        p.relative_to(ROOT).as_posix()
        for package in ("syncdisc_plugin", "generator_integration")
        for p in (ROOT / package).rglob("*.py")
    }
    assert sources <= names
    assert {"syncdisc_plugin/py.typed", "syncdisc_plugin/_weights/SHA256SUMS"} <= names
    tops = {name.split("/")[0] for name in names}
    info = f"syncdisc_plugin-{syncdisc_plugin.__version__}.dist-info"
    assert tops <= {"syncdisc_plugin", "generator_integration", info}
    assert f"{info}/licenses/LICENSE" in names
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]


def test_the_weights_are_in_the_wheel(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        folder = "syncdisc_plugin/_weights/"
        assert folder + BASE in archive.namelist()
        sums = archive.read(folder + "SHA256SUMS").decode()
        rows = [line.split() for line in sums.splitlines() if line.strip()]
        assert BASE in [name for _, name in rows]
        for digest, name in rows:
            assert hashlib.sha256(archive.read(folder + name)).hexdigest() == digest, name


def test_the_installed_package_is_the_one_that_runs(installed: Path, tmp_path: Path) -> None:
    code = "import syncdisc_plugin as s; print(s.__file__); print(s.__version__)"
    where, version = call("-c", code, cwd=tmp_path, PYTHONPATH=str(installed)).splitlines()
    assert Path(where).is_relative_to(installed)
    assert version == syncdisc_plugin.__version__


def test_the_command_is_installed(installed: Path, tmp_path: Path) -> None:
    (script,) = (installed / "bin").glob("syncdisc*")
    out = call(script, "--version", cwd=tmp_path, PYTHONPATH=str(installed))
    assert out == f"syncdisc {syncdisc_plugin.__version__}\n"


def test_the_loss_works_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    code = """
import json, torch, syncdisc_plugin
from syncdisc_plugin import SyncLoss, available
torch.manual_seed(0)
frames = torch.rand(2, 3, 5, 96, 96, requires_grad=True)
loss = SyncLoss()(frames, torch.zeros(2, 1, 80, 16))
loss.backward()
print(json.dumps({
    "file": syncdisc_plugin.__file__,
    "weights": {name: str(path) for name, path in available().items()},
    "loss": loss.item(),
    "gradient": frames.grad.abs().sum().item(),
}))
"""
    got = json.loads(call("-c", code, cwd=tmp_path, PYTHONPATH=str(installed)))
    inside = installed / "syncdisc_plugin"
    assert Path(got["file"]).is_relative_to(inside)
    assert Path(got["weights"]["base"]) == inside / "_weights" / BASE
    assert 0 < got["loss"] < 50 and got["gradient"] > 0
