"""One file per host: how check_host builds that host's generator and runs its training step."""

from __future__ import annotations

from importlib import import_module

from generator_integration.hosts.host import Host

HOMES = {
    "wav2lip": ("wav2lip", "Wav2Lip"),
    "wav2lip_288": ("wav2lip_288", "Wav2Lip288"),
    "latentsync": ("latentsync", "LatentSync"),
    "musetalk": ("musetalk", "MuseTalk"),
    "dinet": ("dinet", "DINet"),
    "ip_lap": ("ip_lap", "IPLAP"),
}
"""Host -> its module and class here; the names are those of `SyncLoss.for_host`."""


def host_class(name: str) -> type[Host]:
    """The class that drives that host. Raises KeyError for an unknown one."""
    module, cls = HOMES[name]
    return getattr(import_module(f"generator_integration.hosts.{module}"), cls)
