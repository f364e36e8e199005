"""A generator that hears with a discriminator's audio tower."""

from __future__ import annotations

from dataclasses import replace

from generator_integration.reference.generator import Generator, GeneratorSettings
from generator_integration.reference.layers import Ear
from generator_integration.reference.losses import check_spec
from syncdisc_plugin import weights
from syncdisc_plugin.spec import ClipSpec


def hearing(settings: GeneratorSettings, spec: ClipSpec, ear: str) -> Generator:
    """A new generator with the audio tower of the discriminator that `ear` names.

    Raises:
        WeightsError: it cannot be read, or is none of ours.
        RunError: it was trained on other sound than the store holds.
    """
    judge = weights.load(ear)
    check_spec("--ear", ear, judge.spec, spec, ("fps", "window_mels", "mel"))
    sizes = {"ear_width": judge.arch.audio_width, "ear_length": judge.arch.embed_dim}
    net = Generator(replace(settings, **sizes), spec)
    assert isinstance(net.sound, Ear)
    net.sound.tower.load_state_dict(judge.audio.state_dict())
    return net
