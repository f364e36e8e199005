"""A small lip-sync generator of our own, its GAN trainer, and `syncdisc lipsync`.

Names come late, so that using a generator loads nothing of its training, and `syncdisc --help` no
torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

# At once, and light: once its file is imported, its name would be the file's.
from generator_integration.reference.lipsync import LipsyncResult, lipsync

if TYPE_CHECKING:
    from generator_integration.reference.generator import Generator, load_generator

__all__ = ["Generator", "LipsyncResult", "lipsync", "load_generator"]


def __getattr__(name: str) -> Any:
    """The generator's names are looked up in its file."""
    if name in ("Generator", "load_generator"):
        return getattr(import_module(f"{__name__}.generator"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
