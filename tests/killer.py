"""A file that takes the process that decodes it down, as a decoder's segmentation fault would."""

from __future__ import annotations

from pathlib import Path

# Imported by Python itself at start, where its folder is on PYTHONPATH. Decoding asks for a file's
# size; listing does not.
_KILLER = """
import os, signal
getsize = os.path.getsize
def deadly(path):
    if os.path.basename(os.fspath(path)).startswith("deadly"):
        os.kill(os.getpid(), signal.SIGKILL)
    return getsize(path)
os.path.getsize = deadly
"""


def inject(folder: Path) -> Path:
    """A folder for PYTHONPATH under which files named deadly* kill their process."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(_KILLER)
    return folder
