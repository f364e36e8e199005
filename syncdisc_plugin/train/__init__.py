"""The three-stage trainer."""

from syncdisc_plugin.train.loop import train
from syncdisc_plugin.train.settings import TrainSettings

__all__ = ["TrainSettings", "train"]
