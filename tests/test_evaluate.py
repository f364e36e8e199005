"""Weights judged on a store: figures, intervals, groups, conditions, other people's experts."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from syncdisc_plugin import weights
from syncdisc_plugin.data.store import ClipStore
from syncdisc_plugin.errors import StoreError
from syncdisc_plugin.evaluate.quality_page import quality_page
from syncdisc_plugin.evaluate.run import EvaluateSettings, evaluate_store
from syncdisc_plugin.evaluate.views import CONDITIONS
from syncdisc_plugin.nn import Discriminator
from syncdisc_plugin.nn.foreign import Wav2LipExpert

KEYS = {
    *("pm_accuracy", "pair_accuracy", "pair_accuracy_by_distance", "auc", "eer", "ece"),
    *("offset_mae_frames", "confidence", "embedding_distance", "embedding_confidence"),
    *("n_clips", "n_windows", "n_speakers", "seconds", "intervals", "groups", "clips"),
}


@pytest.fixture
def net(tiny_net: Discriminator, tmp_path: Path) -> Path:
    return weights.save(tiny_net, tmp_path / "net.safetensors", stage=3)


def test_two_evaluations_give_the_same_json(net: Path, tiny_store: ClipStore) -> None:
    first, second = (
        json.dumps(evaluate_store(net, ClipStore(tiny_store.root)), allow_nan=False)
        for _ in range(2)
    )
    assert first == second
    found = json.loads(first)
    assert set(found) >= KEYS
    assert len(found["clips"]) == found["n_clips"] == len(tiny_store)
    for name in ("pair_accuracy", "auc", "eer", "ece", "offset_mae_frames"):
        low, high = found["intervals"][name]
        assert low <= found[name] <= high, name
    for k, value in found["pm_accuracy"].items():
        low, high = found["intervals"]["pm_accuracy"][k]
        assert low <= value <= high
    assert sum(g["n_clips"] for g in found["groups"]["speaker"].values()) == len(tiny_store)


def test_a_table_that_is_none_is_an_error_before_the_work(
    net: Path, tiny_store: ClipStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("syncdisc_plugin.evaluate.run.embed_clips", pytest.fail)
    with pytest.raises(FileNotFoundError):
        evaluate_store(net, tiny_store, settings=EvaluateSettings(about=tmp_path / "gone.csv"))


def test_the_conditions_are_judged_on_the_same_clips(net: Path, tiny_store: ClipStore) -> None:
    found = evaluate_store(net, tiny_store, settings=EvaluateSettings(condition_minutes=0.05))
    rows = found["conditions"]
    assert [r["condition"] for r in rows] == ["as it is", *(c.name for c in CONDITIONS)]
    assert len({r["pair_accuracy"] for r in rows}) > len(rows) // 2
    page = quality_page(found)
    assert all(c.name in page for c in CONDITIONS)


def test_the_page_stands_alone_and_names_every_clip(net: Path, tiny_store: ClipStore) -> None:
    found = evaluate_store(net, tiny_store)
    found["clips"][0]["source"] = "<b>&.mp4"
    page = quality_page({**found, "refused": [{"path": "broken.mp4", "reason": "no audio"}]})
    assert page.startswith("<!doctype html>") and page.count("<svg") == 4
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert "<b>&.mp4" not in page and "&lt;b&gt;&amp;.mp4" in page
    assert all(Path(c["source"]).name in page for c in found["clips"][1:])
    assert "broken.mp4" in page and "no audio" in page
    assert "nan" not in re.sub(r"<svg.*?</svg>", "", page, flags=re.DOTALL)


def test_a_page_of_one_speaker_says_why_there_are_no_intervals(
    net: Path, tiny_store: ClipStore
) -> None:
    store = ClipStore(tiny_store.root)
    store.clips = [c for c in store.clips if c.speaker == store.clips[0].speaker]
    found = evaluate_store(net, store)
    assert found["intervals"] is None
    assert "three speakers" in quality_page(found)


def test_an_expert_of_another_project_is_evaluated_too(
    tiny_store: ClipStore, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    expert = Wav2LipExpert()
    path = tmp_path / "lipsync_expert.pth"
    torch.save({"state_dict": expert.state_dict()}, path)
    store = ClipStore(tiny_store.root)
    store.clips = store.clips[:2]
    found = evaluate_store(path, store)
    assert found["n_clips"] == 2 and 0 <= found["pair_accuracy"] <= 1


def test_a_store_of_another_frame_rate_is_refused(net: Path, tiny_store: ClipStore) -> None:
    store = ClipStore(tiny_store.root)
    store.spec = replace(store.spec, fps=50)
    with pytest.raises(StoreError, match=r"another frame rate, crop or mel .* Prepare"):
        evaluate_store(net, store)
