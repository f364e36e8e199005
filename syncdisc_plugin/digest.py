"""SHA-256 of a file."""

from __future__ import annotations

import hashlib
from pathlib import Path

PIECE = 1 << 20  # bytes


def sha256(path: Path) -> str:
    """Hexadecimal digest of a file's bytes, read piece by piece.

    `hashlib.file_digest` does it too, but from Python 3.11 on, and LatentSync's and MuseTalk's
    environments are 3.10.

    Raises:
        OSError: it cannot be read.
    """
    found = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            found.update(piece)
    return found.hexdigest()
