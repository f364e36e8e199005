"""The experts that generators are trained with, and the judges that none of them has met."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import torch

from syncdisc_plugin import weights
from syncdisc_plugin.atomic import replacing
from syncdisc_plugin.data.embed import embed_clips
from syncdisc_plugin.data.manifest import read_rows
from syncdisc_plugin.data.split import split_store
from syncdisc_plugin.data.store import ClipStore
from syncdisc_plugin.evaluate.summary import summary
from syncdisc_plugin.evaluate.views import view_for
from syncdisc_plugin.nn import Architecture
from syncdisc_plugin.nn.foreign import Wav2LipExpert
from syncdisc_plugin.nn.judge import Judge
from syncdisc_plugin.nn.precision import choose_precision
from syncdisc_plugin.train import TrainSettings, train

sys.path.append(str(Path(__file__).parents[1] / "recipes"))  # the field's recipe lies there
from field import train_field

# The field's recipe knows the CPU only; equal minutes are equal on one device.
OURS = TrainSettings(device="cpu")
# Another net than any expert: it sees the whole face, is thinner, and starts elsewhere.
JUDGE = replace(
    OURS, seed=1001, architecture=Architecture(face_width=24, audio_width=24, embed_dim=192)
)
JUDGE_REGION = "face"
JUDGES = ("judge", "judge-field")
"""The judge; and, lest one family of nets judges itself, the Wav2Lip expert by its own recipe."""


def train_expert(arm: str, store: ClipStore, out: Path, minutes: float, seed: int) -> Path | None:
    """The expert of an arm, trained unless it is there; None for the arm without."""
    if arm == "none":
        return None
    if arm == "field":
        return _field(store, out / f"field-{seed}.safetensors", minutes, seed)
    run = out / f"ours-{seed}"
    train(store, run, replace(OURS, minutes=minutes, seed=seed), resume=True)
    return run / f"{arm}.safetensors"


def train_judge(name: str, store: ClipStore, out: Path, minutes: float) -> Path:
    """One of JUDGES, trained unless it is there."""
    if name == "judge-field":
        return _field(store, out / f"{name}.safetensors", minutes, JUDGE.seed)
    view = view_for(store, replace(store.spec, region=JUDGE_REGION))
    return train(view, out / name, replace(JUDGE, minutes=minutes), resume=True)


def note_quality(out: Path, name: str, path: Path, store: ClipStore, minutes: float) -> None:
    """How good a net is on the test speakers' true footage: a row of judges.jsonl, once."""
    rows = out / "judges.jsonl"
    if name in {row["net"] for row in read_rows(rows)}:
        return
    net = weights.load_judge(path)
    found = summary(list(embed_clips(net, view_for(store, net.spec), store.clips)), *logit_of(net))
    keys = ("pair_accuracy", "pm_accuracy", "pm_accuracy_aligned", "offset_within_1", "gap")
    row = {"net": name, "minutes": minutes, **{key: found[key] for key in keys}}
    with rows.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


@torch.no_grad()
def logit_of(net: Judge) -> tuple[float, float]:
    """Scale and bias of its logit."""
    at = torch.tensor([0.0, 1.0], device=next(net.parameters()).device)
    zero, one = net.logit(at).tolist()
    return one - zero, zero


def _field(store: ClipStore, path: Path, minutes: float, seed: int) -> Path:
    if path.exists():
        return path
    split = split_store(store)
    torch.manual_seed(seed)
    with replacing(path) as temp:
        train_field(
            Wav2LipExpert(),
            store,
            split.train,
            split.heldout,
            minutes=minutes,
            seed=seed,
            precision=choose_precision("auto", torch.device("cpu")),
            out=temp,
        )
    return path
