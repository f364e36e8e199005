"""The three-stage trainer."""

from syncdisc_plugin.train.loop import train
from syncdisc_plugin.train.settings import GapSettings, StageSettings, TrainSettings

__all__ = ["GapSettings", "StageSettings", "TrainSettings", "train"]
