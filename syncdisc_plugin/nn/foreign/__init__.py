"""Architectures of other people's checkpoints, written afresh with their parameter names."""

from syncdisc_plugin.nn.foreign.wav2lip import Wav2LipExpert

__all__ = ["Wav2LipExpert"]
