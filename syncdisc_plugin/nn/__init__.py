"""The discriminator and its two towers."""

from syncdisc_plugin.nn.curve import OffsetCurve, offset_curve
from syncdisc_plugin.nn.discriminator import Architecture, Discriminator

__all__ = ["Architecture", "Discriminator", "OffsetCurve", "offset_curve"]
