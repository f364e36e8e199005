"""A lip-sync discriminator, its three-stage trainer, and a sync loss for any generator.

    from syncdisc_plugin import SyncLoss
    sync = SyncLoss()                              # shipped stage-3 weights, offline
    loss = recon + sync.weight * sync(frames, mel)

Importing this changes no global setting; torch is loaded when a name is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from syncdisc_plugin.evaluate.score import score
    from syncdisc_plugin.mel import log_mel
    from syncdisc_plugin.nn import Discriminator
    from syncdisc_plugin.region import locate
    from syncdisc_plugin.spec import ClipSpec, MelSpec
    from syncdisc_plugin.sync_loss import SyncLoss
    from syncdisc_plugin.weighting import SyncWeight
    from syncdisc_plugin.weights import available, load

__version__ = "0.1.0"
__all__ = [
    "ClipSpec",
    "Discriminator",
    "MelSpec",
    "SyncLoss",
    "SyncWeight",
    "__version__",
    "available",
    "load",
    "locate",
    "log_mel",
    "score",
]

_HOMES = {
    "ClipSpec": "spec",
    "Discriminator": "nn",
    "MelSpec": "spec",
    "SyncLoss": "sync_loss",
    "SyncWeight": "weighting",
    "available": "weights",
    "load": "weights",
    "locate": "region",
    "log_mel": "mel",
    "score": "evaluate.score",
}


def __getattr__(name: str) -> Any:
    """Names are looked up in their modules, so that `syncdisc --help` need not load torch."""
    if name in _HOMES:
        return getattr(import_module(f"syncdisc_plugin.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'syncdisc_plugin' has no attribute {name!r}")
