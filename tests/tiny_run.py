"""A run small enough for a test, and a program that makes it, to be killed or multiplied."""

from __future__ import annotations

from syncdisc_plugin.nn import Architecture
from syncdisc_plugin.train import TrainSettings

SETTINGS = TrainSettings(
    steps=60,
    heldout_speakers=("speaker4",),
    batch_clips=4,
    chunk_frames=24,
    save_steps=3,
    measures=2,
    precision="fp32",
    architecture=Architecture(face_width=8, audio_width=8, embed_dim=32),
)

# Its arguments: the store, the run, and the settings as JSON.
PROGRAM = """
import json, sys
from pathlib import Path
import torch
from syncdisc_plugin.data.store import ClipStore
from syncdisc_plugin.train import TrainSettings, train
torch.set_num_threads(1)
settings = TrainSettings.from_dict(json.loads(sys.argv[3]))
train(ClipStore(sys.argv[1]), Path(sys.argv[2]), settings, resume=True)
"""
