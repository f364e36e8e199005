"""bench/generator: its figures say what they should, and the whole of it runs and goes on."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from generator_integration.reference.generator import Generator, GeneratorSettings
from syncdisc_plugin.data.embed import Embedded, embed_clips
from syncdisc_plugin.data.manifest import read_rows
from syncdisc_plugin.data.store import ClipStore
from syncdisc_plugin.nn import Architecture, Discriminator
from syncdisc_plugin.timing import mel_start
from syncdisc_plugin.train import TrainSettings

FOLDER = Path(__file__).parents[1] / "bench" / "generator"
NAMES = ("parts", "experts", "takes", "figures", "measure", "report", "pictures")
TINY = Architecture(face_width=8, audio_width=8, embed_dim=32)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    monkeypatch.syspath_prepend(str(FOLDER))
    try:
        modules = {name: importlib.import_module(name) for name in NAMES}
        spec = importlib.util.spec_from_file_location("generator_bench", FOLDER / "__main__.py")
        assert spec and spec.loader
        modules["command"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(modules["command"])
        yield SimpleNamespace(**modules)
    finally:
        for name in (*NAMES, "field"):
            sys.modules.pop(name, None)


# ---------------------------------------------------------------------- the three parts


def test_no_speaker_is_in_two_parts(bench: SimpleNamespace, tiny_store: ClipStore) -> None:
    parts = bench.parts.divide(tiny_store, 1)
    speakers = [{c.speaker for c in clips} for clips in parts.values()]
    assert [len(s) for s in speakers] == [2, 2, 1] and len(set.union(*speakers)) == 5
    assert bench.parts.divide(ClipStore(tiny_store.root), 1) == parts
    with pytest.raises(SystemExit, match="at least 6 speakers, found 5"):
        bench.parts.divide(tiny_store, 2)


def test_test_speakers_have_enough_and_are_not_the_largest(bench: SimpleNamespace) -> None:
    clips = [
        SimpleNamespace(id=f"{who}/{i}", speaker=f"s{who}", n_frames=200 * (1 + who % 5))
        for who in range(40)
        for i in range(300 if who == 0 else 3)
    ]
    store = SimpleNamespace(root=Path("many"), spec=SimpleNamespace(fps=25), clips=clips)
    parts = bench.parts.divide(store, 6)
    frames = {n: sum(c.n_frames for c in clips) for n, clips in parts.items()}
    test = {c.speaker for c in parts["test"]}
    assert len(test) == 6 and "s0" not in test
    # 25 frames a second: 600 are 24 s, and every one of these speakers has that.
    assert 0.35 < frames["judge"] / (frames["judge"] + frames["train"]) < 0.45
    assert sum(c.speaker == "s0" for clips in parts.values() for c in clips) == 100


def test_a_part_is_a_store_of_its_own(
    bench: SimpleNamespace, tiny_store: ClipStore, tmp_path: Path
) -> None:
    for _ in range(2):  # a second call finds the first one's
        part = bench.parts.part_store(tmp_path / "part", tiny_store, tiny_store.clips[:3])
    assert part.clips == tiny_store.clips[:3] and part.spec == tiny_store.spec
    clip = part.clips[1]
    np.testing.assert_array_equal(part.frames(clip, 3, 5), tiny_store.frames(clip, 3, 5))
    assert not (tiny_store.root / "split.json").exists()


# ---------------------------------------------------------------------- takes


def test_takes_and_what_drives_them(bench: SimpleNamespace, tiny_store: ClipStore) -> None:
    takes = bench.takes.cut_takes(tiny_store)
    assert len(takes) == 10 and {t.n_frames % 5 for t in takes} == {0}
    others = bench.takes.partners(takes)
    assert len(set(others)) == 10
    assert all(a.clip.speaker != b.clip.speaker for a, b in zip(takes, others, strict=True))
    alone = takes[:2]  # of one speaker
    assert bench.takes.partners(alone) == alone[::-1]


def test_long_clips_are_cut_and_a_speaker_has_a_limit(
    bench: SimpleNamespace, tiny_store: ClipStore
) -> None:
    long = replace(tiny_store.clips[0], n_frames=20 * 125, n_mels=20 * 400)
    store = SimpleNamespace(
        root=Path(),
        spec=tiny_store.spec,
        clips=[long, tiny_store.clips[-1]],
        windows=tiny_store.windows,
    )
    takes = [t for t in bench.takes.cut_takes(store) if t.clip.id == long.id]
    assert len(takes) == 8 and takes[0].n_frames == 125
    assert [t.start for t in takes] == sorted(t.start for t in takes) and takes[-1].start > 1500


def test_a_takes_sound_is_the_stores(bench: SimpleNamespace, tiny_store: ClipStore) -> None:
    clip, spec = tiny_store.clips[0], tiny_store.spec
    mel = tiny_store.mel(clip)
    for start in (0, 10):
        take = bench.takes.Take(clip, start, 40)
        sound = bench.takes.sound_of(tiny_store, take)
        windows = bench.takes.windows_of(sound, 40, spec)
        assert windows.shape == (40, 1, 80, 16)
        for f in range(1 if start == 0 else 0, 40):
            at = mel_start(start + f - 1, spec)
            np.testing.assert_array_equal(windows[f, 0].numpy(), mel[at : at + 16].T)
        own = bench.takes.own_mel(sound, spec)
        at = mel_start(start, spec)
        np.testing.assert_array_equal(own[:80], mel[at : at + 80])
    first = bench.takes.windows_of(
        bench.takes.sound_of(tiny_store, bench.takes.Take(clip, 0, 40)), 1, spec
    )
    assert (first[0, 0, :, :4] == -4).all()  # nothing is heard before the clip


def test_drawn_in_pieces_it_is_the_same(
    bench: SimpleNamespace, tiny_store: ClipStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    net = Generator(GeneratorSettings(width=8, size=32, embedding=16)).eval()
    take = bench.takes.cut_takes(tiny_store)[0]
    faces, references = (
        f(tiny_store, take, 32) for f in (bench.takes.faces_of, bench.takes.references_of)
    )
    windows = bench.takes.windows_of(
        bench.takes.sound_of(tiny_store, take), len(faces), tiny_store.spec
    )
    drawn = []
    for piece in (7, 1000):
        monkeypatch.setattr(bench.takes, "PIECE", piece)
        drawn.append(bench.takes.draw(net, faces, references, windows).astype(int))
    assert drawn[0].shape == faces.shape and np.abs(drawn[0] - drawn[1]).max() <= 1
    np.testing.assert_array_equal(drawn[0][:, : net.first_row], faces[:, : net.first_row])
    still = bench.takes.frozen(faces, references, 16)
    np.testing.assert_array_equal(still[:, :16], faces[:, :16])
    assert (still[:, 16:] == still[:1, 16:]).all()


# ---------------------------------------------------------------------- figures


def test_the_true_frames_embed_as_the_store_has_them(
    bench: SimpleNamespace, tiny_store: ClipStore, tiny_net: Discriminator
) -> None:
    clip = tiny_store.clips[0]
    (whole,) = embed_clips(tiny_net, tiny_store, [clip])
    take = bench.takes.Take(clip, 5, 40)
    v = bench.figures.embed_drawn(tiny_net, bench.takes.faces_of(tiny_store, take, 96))
    assert torch.allclose(v, whole.v[5:41], atol=1e-5)
    small = bench.figures.embed_drawn(tiny_net, bench.takes.faces_of(tiny_store, take, 48))
    assert small.shape == v.shape and (small * v).sum(-1).mean() > 0.8


def test_the_same_picture_is_perfect_and_a_blurred_one_is_not(bench: SimpleNamespace) -> None:
    true = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    picture = bench.figures.Picture()
    same = picture.figures(true, true)
    assert same["psnr_db"] == pytest.approx(80) and same["ssim"] == same["sharpness"] == 1
    blurred = np.stack([cv2.GaussianBlur(f, (0, 0), 2) for f in true])
    worse = picture.figures(blurred, true)
    assert worse["psnr_db"] < 20 and worse["ssim"] < 0.6 and worse["sharpness"] < 0.1
    # One grey level off everywhere: 20 log10(255).
    off = picture.figures(np.full((1, 32, 32, 3), 101), np.full((1, 32, 32, 3), 100, np.uint8))
    assert off["psnr_db"] == pytest.approx(48.13, abs=0.01)
    upper = true.copy()
    upper[:, :16] = 0  # nobody draws there
    assert picture.figures(upper, true) == same


def _embedded(store: ClipStore, v: torch.Tensor, a: torch.Tensor) -> Embedded:
    return Embedded(store.clips[0], v, a, 5)


def test_preference_and_sync_of_constructed_takes(
    bench: SimpleNamespace, tiny_store: ClipStore, tiny_net: Discriminator
) -> None:
    eye = torch.eye(60)
    perfect = _embedded(tiny_store, eye, eye)
    late = _embedded(tiny_store, eye, eye.roll(4, 0))
    found = bench.figures.sync_figures(tiny_net, [perfect, perfect])
    assert set(found["pm_accuracy"].values()) == {1.0} and found["similarity"] == 1
    assert found["offset_mae_frames"] == 0 and found["offset_within_1"] == 1
    mixed = bench.figures.sync_figures(tiny_net, [perfect, late])
    assert mixed["offset_mae_frames"] == 2 and mixed["offset_within_1"] == 0.5
    assert mixed["similarity"] == pytest.approx(0.5)
    prefers = bench.figures.preference([perfect, late], [late, perfect])
    assert prefers == {"takes": 0.5, "windows": 0.5, "margin": 0.0}
    by_take = bench.figures.by_take([perfect, late])
    assert by_take["similarity"] == [1, 0] and by_take["pm_15"][0] == 1
    assert by_take["pm_15"][1] < 0.15  # at the ends, shift 4 reaches beyond the take


def test_true_frames_are_the_ceiling_whoever_drives(
    bench: SimpleNamespace, tiny_store: ClipStore, tiny_net: Discriminator
) -> None:
    heldout = bench.measure.Heldout.of(tiny_store, 96)
    picture = bench.figures.Picture()
    nets = {"judge": tiny_net}
    true = bench.measure.measure(heldout, bench.measure.truth, nets, picture, "truth")
    # A generator that happened to draw the very footage: the same by its own sound, and by the
    # other's the same frames against the other sound.
    copied = bench.measure.measure(heldout, lambda f, r, w: f, nets, picture, "copied")
    assert copied["own"] == true["own"] and copied["picture"] == true["picture"]
    assert true["picture"]["ssim"] == true["picture"]["sharpness"] == 1
    one, two = (found["other"]["judge"]["prefers"] for found in (true, copied))
    assert one["takes"] == pytest.approx(1 - two["takes"])
    assert one["margin"] == pytest.approx(-two["margin"])
    assert true["own"]["judge"]["similarity"] == pytest.approx(
        np.mean([(e.v * e.a).sum(-1).mean() for e in _takes(bench, tiny_store, tiny_net)]), abs=0.02
    )
    still = bench.measure.measure(heldout, bench.measure.still(48), nets, picture, "frozen")
    assert still["picture"]["psnr_db"] < 60 and still["own"] != true["own"]
    assert len(still["takes"]["ssim"]) == len(still["takes"]["own"]["pm_15"]) == 10


def _takes(bench: SimpleNamespace, store: ClipStore, net: Discriminator) -> list[Embedded]:
    return list(embed_clips(net, store, [t.clip for t in bench.takes.cut_takes(store)]))


def test_a_difference_has_an_interval_over_speakers(bench: SimpleNamespace) -> None:
    values = np.array([0.1, 0.3, 0.2, 0.2, 0.3, 0.1])
    assert bench.report._difference(values, list("aabbcc")) == "+0.200 (+0.200 to +0.200)"
    assert bench.report._difference(values, list("aabbbb")) == "+0.200"
    low, high = bench.report._difference(values, list("abcdef")).split("(")[1].split(" to ")
    assert 0.1 < float(low) < 0.2 < float(high.rstrip(")")) < 0.3


# ---------------------------------------------------------------------- all of it


@pytest.mark.slow
def test_all_arms_are_trained_measured_and_shown(
    bench: SimpleNamespace,
    tiny_store: ClipStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "work"
    tiny = TrainSettings(
        steps=10, batch_clips=2, chunk_frames=24, measures=1, device="cpu", architecture=TINY
    )
    monkeypatch.setattr(bench.experts, "OURS", tiny)
    monkeypatch.setattr(bench.experts, "JUDGE", replace(tiny, seed=7))
    monkeypatch.setattr(bench.experts, "train_field", _untrained)
    monkeypatch.setattr(bench.command, "SNAPSHOTS", 2)
    monkeypatch.setattr(bench.command, "WATCHED", 1)
    args = ["--store", str(tiny_store.root), "--out", str(out), "--steps", "4", "--batch", "2"]
    args += ["--width", "8", "--size", "32", "--test-speakers", "1", "--seeds", "0"]

    bench.command.main([*args, "--arms", "none", "stage3"])
    assert "train: 4 clips" in (said := capsys.readouterr().out) and "2 takes" in said
    rows = list(read_rows(out / "rows.jsonl"))
    assert [(r["arm"], r["seed"]) for r in rows] == [
        ("truth", None),
        ("frozen", None),
        ("none", 0),
        ("stage3", 0),
    ]
    assert [p["step"] for p in rows[3]["curve"]] == [2, 4]
    assert set(rows[3]["curve"][-1]["own"]) == {"judge", "expert"}
    assert rows[3]["expert"] == "experts/ours-0/stage3.safetensors" and rows[2]["expert"] is None

    # The others join; what is done is left alone.
    before = {p: p.stat().st_mtime_ns for p in (out / "runs").rglob("*.safetensors")}
    bench.command.main(args)
    assert all(p.stat().st_mtime_ns == time for p, time in before.items())
    rows = list(read_rows(out / "rows.jsonl"))
    assert [r["arm"] for r in rows[4:]] == ["field", "stage1"]
    settings = [
        json.loads((out / "runs" / f"{arm}-0" / "settings.json").read_text())
        for arm in ("none", "field", "stage1", "stage3")
    ]
    assert len({s.pop("sync") for s in settings}) == 4
    assert all(s == settings[0] for s in settings)

    text = (out / "table.md").read_text()
    for name in bench.report.NAMES.values():
        assert f"| {name} |" in text
    for name in ("judge", "judge-field", "field-0", "stage1-0", "stage3-0"):
        assert f"| {name} |" in text
    assert "## Our stage 3 minus the others" in text and "## Over-optimisation" in text
    assert (out / "generator.svg").stat().st_size > 1000
    sheet = cv2.imread(str(out / "sheet.png"))
    assert sheet.shape == (6 * (16 + 64), 12 * 64, 3)
    assert not (tiny_store.root / "split.json").exists()  # a store that is given is only read

    assert text.count("By the second judge") == 2
    for row in rows:  # as --judges 1 leaves them
        del row["own"]["judge-field"], row["other"]["judge-field"]
    (out / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    bench.report.write_table(out)
    assert "By the second judge" not in (out / "table.md").read_text()

    with pytest.raises(SystemExit, match="begun with other steps"):
        bench.command.main([*args, "--steps", "6"])


def _untrained(net: torch.nn.Module, *_: object, out: Path, **__: object) -> None:
    from safetensors.torch import save_file

    save_file(net.state_dict(), out)


def test_minutes_become_steps_once(
    bench: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command: ModuleType = bench.command
    calls = []

    def timed(store: object, run: Path, settings: object, resume: bool) -> None:
        calls.append(settings)
        rows = [{"kind": "step", "step": s, "seconds": 2.0 * s} for s in (1, 10, command.TIMED)]
        (run / "log.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))

    monkeypatch.setattr(command, "train_generator", timed)
    one = command.Bench.__new__(command.Bench)
    one.out, one.parts = tmp_path, {"train": None}
    one.args = SimpleNamespace(steps=0, minutes=10, seeds=[0], batch=4, width=8, size=32)
    one._expert = lambda arm, seed: Path("stage3.safetensors")
    assert one.settings.steps == 300 and one.settings.snapshot_steps == 60
    del one.settings
    assert one.settings.steps == 300 and len(calls) == 1
    assert calls[0].sync_from == calls[0].gan_from == 0
