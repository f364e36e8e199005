"""Architectures of other people's checkpoints, written afresh with their parameter names."""

from syncdisc_plugin.nn.foreign.latentsync import StableSyncNet
from syncdisc_plugin.nn.foreign.read import read
from syncdisc_plugin.nn.foreign.wav2lip import Wav2LipExpert
from syncdisc_plugin.nn.foreign.wav2lip_384 import Wav2Lip384Expert

__all__ = ["StableSyncNet", "Wav2Lip384Expert", "Wav2LipExpert", "read"]
