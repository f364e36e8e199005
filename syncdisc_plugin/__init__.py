"""A lip-sync discriminator, its three-stage trainer, and a sync loss for any generator.

    from syncdisc_plugin import SyncLoss
    sync = SyncLoss()                              # shipped stage-3 weights, offline
    loss = recon + sync.weight * sync(frames, mel)

Importing this loads torch, numpy, einops and safetensors and changes no global setting.
"""

from syncdisc_plugin.mel import log_mel
from syncdisc_plugin.nn import Discriminator
from syncdisc_plugin.spec import ClipSpec, MelSpec
from syncdisc_plugin.sync_loss import SyncLoss
from syncdisc_plugin.weights import available, load

__version__ = "0.1.0"
__all__ = [
    "ClipSpec",
    "Discriminator",
    "MelSpec",
    "SyncLoss",
    "__version__",
    "available",
    "load",
    "log_mel",
]
