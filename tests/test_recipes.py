"""bench/recipes: what it plants is what it says, and the arms run and fill the table."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from syncdisc_plugin.data.embed import embed_clips
from syncdisc_plugin.data.store import ClipStore
from syncdisc_plugin.nn import Architecture, Discriminator
from syncdisc_plugin.nn.foreign import Wav2LipExpert
from syncdisc_plugin.timing import mel_start

FOLDER = Path(__file__).parents[1] / "bench" / "recipes"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    import importlib

    monkeypatch.syspath_prepend(str(FOLDER))
    try:
        yield {name: importlib.import_module(name) for name in ("split", "spoil", "field", "table")}
    finally:
        for name in ("split", "spoil", "field", "table"):
            sys.modules.pop(name, None)


def test_planted_errors_are_what_they_say(
    bench: dict[str, ModuleType], tiny_store: ClipStore
) -> None:
    clips = tiny_store.clips
    footage = bench["spoil"].Footage(tiny_store, clips, clips, 1.0, 0)
    kinds = [p.kind for p in footage.planted.values()]
    assert len(kinds) == len(clips) == 10
    assert max(kinds.count(k) for k in set(kinds)) - min(kinds.count(k) for k in set(kinds)) <= 1
    for clip in footage.clips:
        was, planted = tiny_store[clip.id], footage.planted[clip.id]
        frames, mel = footage.frames(clip), footage.mel(clip)
        assert len(frames) == clip.n_frames and len(mel) == clip.n_mels
        whole_frames, whole_mel = tiny_store.frames(was), tiny_store.mel(was)
        if planted.kind == "shifted":
            k = planted.offset_frames
            assert 3 <= abs(k) <= 12 and clip.n_frames == was.n_frames - abs(k)
            # Audio k frames early: seen at f is heard at f - k.
            f = 20
            at = next(
                i for i in range(len(whole_frames)) if np.array_equal(whole_frames[i], frames[f])
            )
            heard = mel[mel_start(f - k, footage.spec)]
            near = whole_mel[mel_start(at, footage.spec) - 1 : mel_start(at, footage.spec) + 2]
            assert np.abs(near - heard).max(1).min() < 1e-6
        elif planted.kind == "wrong_face":
            assert not np.array_equal(frames[0], whole_frames[0])
            np.testing.assert_array_equal(mel, whole_mel[: len(mel)])
        else:
            np.testing.assert_array_equal(frames, whole_frames[: len(frames)])
            n = min(len(mel), len(whole_mel))
            assert np.abs(mel[:n] - whole_mel[:n]).max() > 0.5


def test_clean_footage_is_the_store_and_a_part_is_a_part(
    bench: dict[str, ModuleType], tiny_store: ClipStore
) -> None:
    Footage, clips = bench["spoil"].Footage, tiny_store.clips
    clean = Footage(tiny_store, clips[:6], clips[:4], 0.0, 0)
    assert clean.clips == clips[:6] and not clean.planted
    part = Footage(tiny_store, clips[:6], clips[:4], 0.5, 0)
    assert len(part.planted) == 2 and set(part.planted) <= {c.id for c in clips[:4]}
    again = Footage(tiny_store, clips[:6], clips[:4], 0.5, 0)
    assert again.planted == part.planted and again.clips == part.clips


@pytest.mark.slow
@pytest.mark.parametrize("architecture", [None, Architecture(8, 8, 32)])
def test_the_fields_recipe_trains_and_is_measured(
    bench: dict[str, ModuleType],
    tiny_store: ClipStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    architecture: Architecture | None,
) -> None:
    """With the net that goes with it (a), and with ours (b)."""
    monkeypatch.setattr(bench["field"], "BATCH", 8)
    monkeypatch.setattr(bench["field"], "MEASURES", 2)
    torch.manual_seed(0)
    net, log = bench["field"].train_field(
        Discriminator(tiny_store.spec, architecture) if architecture else Wav2LipExpert(),
        tiny_store,
        tiny_store.clips[:8],
        tiny_store.clips[8:],
        minutes=0.1,
        seed=0,
        precision="fp32",
        out=tmp_path / "field.safetensors",
    )
    assert len(log["curve"]) == 2 and log["steps"] >= 1
    assert 0.4 < log["curve"][0]["loss"] < 3  # not yet learnt
    (one,) = embed_clips(net, tiny_store, tiny_store.clips[8:9])
    assert one.v.shape == one.a.shape
    assert one.v.shape == (tiny_store.windows(one.clip), 32 if architecture else 512)
    kept = load_file(tmp_path / "field.safetensors")
    assert all(torch.equal(kept[name], value) for name, value in net.state_dict().items())


def test_the_table_shows_means_and_spread(bench: dict[str, ModuleType], tmp_path: Path) -> None:
    def row(arm: str, seed: int, pm: float, part: float = 0.0, **more: object) -> str:
        figures = {
            "pair_accuracy": 0.8,
            "pm_accuracy": {k: pm for k in ("5", "9", "15", "25")},
            "ece": None if arm == "field" else 0.02,
        }
        curve = [{"seconds": 60 * i, "pm_accuracy_15": pm * i / 3} for i in range(4)]
        about = {"arm": arm, "seed": seed, "spoil": part, "minutes": 30, "cores": 2, "draw": 13}
        about |= {"steps": 100, "pairs": 6400, "seconds": 1800.0}
        return json.dumps({**about, "curve": curve, "test": figures, "wild": figures, **more})

    kinds = {"clips": 10, "found": 9, "right": 8, "shifted": 4, "within_1": 3}
    kinds["within_1_of_planted"] = 2
    filtered = {"kinds": {"shifted": kinds}, "good": 50, "good_dropped": 5, "good_shifted": 0}
    rows = [row("field", 0, 0.2), row("field", 1, 0.4), row("stage3", 0, 0.75)]
    rows.append(row("stage3", 0, 0.7, 0.3, filter=filtered, filter_again=filtered))
    (tmp_path / "rows.jsonl").write_text("\n".join(rows) + "\n")
    bench["table"].write_table(tmp_path / "rows.jsonl")
    text = (tmp_path / "table.md").read_text()
    assert "## 30 minutes on 2 cores, 30% of the training clips spoiled" in text
    assert "0.300 (0.200-0.400)" in text and "0.750" in text
    assert "| shifted | 10 | 90% | 80% | 4 | 75% | 50% |" in text
    assert "Good clips: 50, of which dropped 10%, shifted 0%." in text
    assert (tmp_path / "recipes.svg").stat().st_size > 1000
