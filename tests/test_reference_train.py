"""Training the reference generator: batches, losses, the loop, its files, resume after kill -9."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
import types
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from generator_integration.reference import losses as losses_module
from generator_integration.reference.data import Windows, chosen_items, cut_faces
from generator_integration.reference.generator import (
    Generator,
    GeneratorSettings,
    load_generator,
    read_generator,
)
from generator_integration.reference.layers import Ear
from generator_integration.reference.losses import HEARD_AND_SEEN, Losses, load_lpips, mouth_map
from generator_integration.reference.progress import read_progress
from generator_integration.reference.quality import QualityDiscriminator
from generator_integration.reference.settings import GeneratorTrainSettings
from generator_integration.reference.sheet import write_sheet
from generator_integration.reference.train import (
    GeneratorTrainer,
    learning_rate,
    main,
    train_generator,
)
from syncdisc_plugin.data.lock import Lock
from syncdisc_plugin.data.manifest import read_rows
from syncdisc_plugin.data.sampling import Item
from syncdisc_plugin.data.store import ClipStore
from syncdisc_plugin.errors import RunError, WeightsError
from syncdisc_plugin.nn import Architecture, Discriminator
from syncdisc_plugin.spec import ClipSpec, MelSpec
from syncdisc_plugin.timing import mel_start
from syncdisc_plugin.train.interrupt import Interrupt
from syncdisc_plugin.weights import save

SETTINGS = GeneratorTrainSettings(
    steps=24,
    heldout_speakers=("speaker4",),
    batch=4,
    references=2,
    learning_rate=2e-3,
    gan_from=0.4,
    quality_width=8,
    sync_from=0.2,
    sync_rests=True,
    measure_steps=10,
    snapshot_steps=12,
    save_seconds=0.0,
    precision="fp32",
    ear="none",
    generator=GeneratorSettings(width=8, size=32, embedding=16),
)

# Its arguments: the store, the run, and the settings as JSON.
PROGRAM = """
import json, sys
from pathlib import Path
import torch
from generator_integration.reference.settings import GeneratorTrainSettings
from generator_integration.reference.train import train_generator
from syncdisc_plugin.data.store import ClipStore
torch.set_num_threads(1)
settings = GeneratorTrainSettings.from_dict(json.loads(sys.argv[3]))
train_generator(ClipStore(sys.argv[1]), Path(sys.argv[2]), settings, resume=True)
"""


# ---------------------------------------------------------------------- batches


def windows(store: ClipStore, **changes: object) -> Windows:
    given = {"batch": 3, "references": 3, "seed": 0} | changes
    items = given.pop("items", None) or chosen_items(store.clips)
    return Windows(store, items, given.pop("spec", store.spec), **given)  # type: ignore[arg-type]


def test_a_batch_is_a_function_of_seed_and_step(tiny_store: ClipStore) -> None:
    one, same = windows(tiny_store).batch(5), windows(tiny_store).batch(5)
    for name in ("target", "reference", "mels", "window"):
        assert torch.equal(getattr(one, name), getattr(same, name))
    for other in (windows(tiny_store).batch(6), windows(tiny_store, seed=1).batch(5)):
        assert not torch.equal(one.target, other.target)


def test_shapes(tiny_store: ClipStore) -> None:
    seen = set()
    for step in range(8):
        batch = windows(tiny_store).batch(step)
        assert batch.target.shape == (3, 5, 3, 96, 96) and batch.target.dtype == torch.uint8
        assert batch.mels.shape == (3, 5, 1, 80, 16) and batch.window.shape == (3, 1, 80, 16)
        assert batch.reference.shape[0] == 3 and batch.reference.shape[2:] == (3, 96, 96)
        seen.add(batch.reference.shape[1])
    assert seen == {1, 2, 3}


def test_unchanged_windows_are_the_stores_own(tiny_store: ClipStore) -> None:
    clip, spec = tiny_store.clips[0], tiny_store.spec
    batch = windows(tiny_store, batch=1, changes=None, items=[Item(clip)]).batch(0)
    border = (spec.stored_px - spec.face_px) // 2
    inner = slice(border, border + spec.face_px)
    frames = torch.from_numpy(tiny_store.frames(clip)[:, inner, inner]).permute(0, 3, 1, 2)
    mel = torch.from_numpy(tiny_store.mel(clip)).T
    (start,) = (
        f for f in range(len(frames) - 4) if torch.equal(frames[f : f + 5], batch.target[0])
    )
    assert start >= 1
    at = mel_start(start, spec)
    assert torch.equal(batch.window[0, 0], mel[:, at : at + 16])
    for f in range(5):
        at = mel_start(start + f - 1, spec)
        assert torch.equal(batch.mels[0, f, 0], mel[:, at : at + 16])
    for other in batch.reference[0]:
        (found,) = (f for f, frame in enumerate(frames) if torch.equal(frame, other))
        assert found < start - 4 or found > start + 4 + 4


def test_a_lag_moves_the_sound(tiny_store: ClipStore) -> None:
    clip = tiny_store.clips[0]
    one, moved = (
        windows(tiny_store, batch=1, changes=None, items=[Item(clip, lag)]).batch(0)
        for lag in (0.0, 5.0)
    )
    mel = torch.from_numpy(tiny_store.mel(clip)).T
    at = [
        next(m for m in range(mel.shape[1]) if torch.equal(mel[:, m : m + 16], w.window[0, 0]))
        for w in (one, moved)
    ]
    frames = torch.from_numpy(tiny_store.frames(clip)).permute(0, 3, 1, 2)[:, :, 12:-12, 12:-12]
    start = [
        next(f for f in range(len(frames)) if torch.equal(frames[f], w.target[0, 0]))
        for w in (one, moved)
    ]
    assert at[0] == mel_start(start[0], ClipSpec())
    assert at[1] == mel_start(start[1] - 5, ClipSpec())


def test_target_and_reference_are_cut_alike(tiny_store: ClipStore) -> None:
    """The background's edge lies at the same place, mirrored or not."""
    batch = windows(tiny_store, batch=8).batch(1)
    first = batch.target[:, :, :, :8].float().mean((1, 3, 4))
    other = batch.reference[:, :, :, :8].float().mean((1, 3, 4))
    assert (first - other).abs().max() < 12


def test_another_size_shows_the_same_face(tiny_store: ClipStore) -> None:
    frames, spec = tiny_store.frames(tiny_store.clips[0], 0, 2), tiny_store.spec
    exact = cut_faces(frames, spec, 96)
    for size in (48, 192):
        resized = cut_faces(frames, spec, size)
        back = np.stack([cv2.resize(f, (96, 96), interpolation=cv2.INTER_AREA) for f in resized])
        assert np.abs(back.astype(int) - exact).mean() < 4


def test_clips_too_short_are_named(tiny_store: ClipStore) -> None:
    clip = replace(tiny_store.clips[0], n_frames=6)
    with pytest.raises(ValueError, match="at least 7 frames"):
        windows(tiny_store, items=[Item(clip)])


def test_the_filter_of_a_run_is_used(tiny_store: ClipStore, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no filter\.jsonl"):
        chosen_items(tiny_store.clips, str(tmp_path))
    verdicts = ("kept", "shifted", "dropped")
    rows = [
        {"clip_id": c.id, "verdict": v, "lag_frames": 2.5}
        for c, v in zip(tiny_store.clips, verdicts, strict=False)
    ]
    path = tmp_path / "filter.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    items = chosen_items(tiny_store.clips, str(tmp_path))
    assert items == [Item(c, 2.5) for c in tiny_store.clips[:2]]
    # What was not judged, held-out clips as a rule, is measured at the lag of the whole set.
    (tmp_path / "reference.json").write_text('{"lag_frames": 1}')
    heldout = chosen_items(tiny_store.clips, str(tmp_path), heldout=True)
    assert heldout[:2] == [Item(c, 3.5) for c in tiny_store.clips[:2]]
    assert heldout[2:] == [Item(c, 1) for c in tiny_store.clips[3:]]
    assert chosen_items(tiny_store.clips, heldout=True) == [Item(c) for c in tiny_store.clips]
    with pytest.raises(RunError, match="none of the held-out clips"):
        chosen_items(tiny_store.clips[2:3], str(tmp_path), heldout=True)
    path.write_text("")
    with pytest.raises(RunError, match="leaves none"):
        chosen_items(tiny_store.clips, str(tmp_path))


# ---------------------------------------------------------------------- losses


def the_losses(**changes: object) -> tuple[Losses, Generator]:
    settings = replace(SETTINGS, **{"sync": "none", **changes})  # type: ignore[arg-type]
    net = Generator(settings.generator)
    torch.manual_seed(0)
    quality = QualityDiscriminator(8)
    return Losses(settings, net, quality, torch.device("cpu"), "fp32"), net


def test_the_mouth_weighs_most() -> None:
    weights = mouth_map(96, 40, 4.0)
    assert weights.shape == (56, 96) and weights.mean() == pytest.approx(1.0, abs=1e-5)
    assert weights.max() / weights.min() == pytest.approx(4.0, rel=0.05)
    assert weights.argmax() // 96 + 40 in (71, 72) and weights.argmax() % 96 in (47, 48)
    with pytest.raises(ValueError, match="weight: expected"):
        mouth_map(96, 40, 0.5)


def test_losses_join_in_turn() -> None:
    losses, _ = the_losses(sync="base")
    target, window = torch.rand(2, 5, 3, 32, 32), torch.zeros(2, 1, 80, 16)
    drawn = torch.rand_like(target, requires_grad=True)
    rows = [losses.of_generator(drawn, target, window, part, (0, 0)) for part in (0.0, 0.3, 0.5)]
    assert set(rows[0][2]) == {"loss", "l1"} and rows[0][0] == rows[0][2]["l1"]
    assert {"sync", "sync_weight"} == set(rows[1][2]) - set(rows[0][2])
    assert {"fooling", "features", "judging", "gan_weight"} == set(rows[2][2]) - set(rows[1][2])
    assert rows[0][1] is rows[1][1] is None and rows[2][1] is not None
    rows[2][0].backward()
    assert all(p.grad is None for p in losses.quality.parameters())  # frozen for the generator
    rows[2][1].backward()
    assert all(p.grad is not None for p in losses.quality.parameters())


def test_the_sync_weight_falls_in_the_second_half() -> None:
    ratios = {"sync_ratio": 50.0, "sync_final_ratio": 2.0}
    losses, _ = the_losses(sync="base", sync_ramp=0, gan_from=1.0, **ratios)
    target, window = torch.rand(2, 5, 3, 32, 32), torch.zeros(2, 1, 80, 16)
    drawn = torch.rand_like(target, requires_grad=True)
    parts = (0.2, 0.5, 0.75, 1.0)
    rows = [losses.of_generator(drawn, target, window, part, (0, 0))[2] for part in parts]
    first = rows[0]["sync_weight"]
    falls = [row["sync_weight"] / first for row in rows]
    assert 0 < first < 1  # not at its bound
    assert falls == pytest.approx([1, 1, 1 / 5, 1 / 25], rel=1e-4)  # of 50, to 2


def test_figures_of_a_perfect_and_of_a_flat_picture() -> None:
    losses, _ = the_losses()
    target, window = torch.rand(2, 5, 3, 32, 32), torch.zeros(2, 1, 80, 16)
    perfect = losses.figures(target, target, window)
    assert perfect["l1"] == 0 and perfect["psnr_db"] > 60 and perfect["sharpness"] == 1
    flat = losses.figures(torch.full_like(target, 0.5), target, window)
    assert flat["l1"] > 0.2 and flat["psnr_db"] < 12 and flat["sharpness"] < 0.01


def test_lpips_is_on_only_where_nothing_is_downloaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Fake(torch.nn.Module):
        def __init__(self, net: str, verbose: bool) -> None:
            super().__init__()

        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return (a - b).square().mean((1, 2, 3), keepdim=True)

    monkeypatch.setattr(losses_module.torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setitem(sys.modules, "lpips", types.SimpleNamespace(LPIPS=Fake))
    net, said = load_lpips(torch.device("cpu"))
    assert net is None and said.startswith("off: AlexNet")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "alexnet-owt-7be5be79.pth").touch()
    losses, _ = the_losses()
    assert losses.said.startswith("on")
    target = torch.rand(2, 5, 3, 32, 32)
    drawn = torch.rand_like(target, requires_grad=True)
    loss, _, row = losses.of_generator(drawn, target, torch.zeros(2, 1, 80, 16), 0.0, (0, 0))
    assert loss.item() == pytest.approx(row["l1"] + 0.2 * row["lpips"])
    monkeypatch.setitem(sys.modules, "lpips", None)
    assert load_lpips(torch.device("cpu"))[0] is None


def test_a_judge_of_longer_windows_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    losses, net = the_losses(sync="base")
    assert losses.sync is not None
    net.spec = replace(net.spec, window_frames=16)
    with pytest.raises(RunError, match="window_frames=16"):
        losses_module.check_spec("--sync", "base", losses.sync.spec, net.spec, HEARD_AND_SEEN)
    net.spec = replace(losses.sync.spec, mel=MelSpec(fmin_hz=80))
    with pytest.raises(RunError, match="mel="):
        losses_module.check_spec("--sync", "base", losses.sync.spec, net.spec, HEARD_AND_SEEN)


# ---------------------------------------------------------------------- the run


@pytest.mark.parametrize(
    ("change", "flag"),
    [
        ({"steps": 0, "minutes": 0}, "--minutes"),
        ({"batch": 0}, "--batch"),
        ({"references": 0}, "--references"),
        ({"snapshot_steps": -1}, "--snapshot_steps"),
        ({"gan_from": 1.5}, "--gan_from"),
        ({"mouth_weight": 0.0}, "--mouth_weight"),
        ({"sync_ratio": 0.0}, "--sync_ratio"),
        ({"sync_final_ratio": -1.0}, "--sync_final_ratio"),
        ({"gan_ratio": 0.0}, "--gan_ratio.*--gan_from 1"),
        ({"learning_rate": 0.0}, "--learning_rate"),
        ({"ema": 1.5}, "--ema"),
        ({"generator": GeneratorSettings(ear_width=48)}, "--generator.ear_width"),
        ({"precision": "fp16"}, "--precision"),
    ],
)
def test_settings_that_cannot_be(change: dict[str, float], flag: str) -> None:
    with pytest.raises(ValueError, match=flag):
        replace(SETTINGS, **change)  # type: ignore[arg-type]


def test_settings_survive_json() -> None:
    raw = json.loads(json.dumps(asdict(SETTINGS)))
    assert GeneratorTrainSettings.from_dict(raw) == SETTINGS
    with pytest.raises(RunError, match="wings"):
        GeneratorTrainSettings.from_dict({**raw, "wings": 2})


def test_the_learning_rate_warms_up_and_falls() -> None:
    rates = [learning_rate(SETTINGS, step, step / 400) for step in (0, 49, 200, 400)]
    assert rates[0] < 0.03 * rates[1] and rates[1] > rates[2] > rates[3]
    assert rates[3] == pytest.approx(SETTINGS.final_rate)


def test_sheets_are_rows_of_pictures(tmp_path: Path) -> None:
    red = torch.zeros(3, 3, 8, 8)
    red[:, 0] = 1
    image = cv2.imread(str(write_sheet(tmp_path / "s.png", {"red": red, "dark": red * 0})))
    assert image.shape == (2 * (16 + 16), 3 * 16, 3)
    assert image[20, 5].tolist() == [0, 0, 255] and image[-1, -1].tolist() == [0, 0, 0]


def _start(store: Path, run: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(store), str(run), json.dumps(asdict(SETTINGS))],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    output, _ = process.communicate(timeout=400)
    assert process.returncode == 0, output.decode()[-2000:]


def _rows(run: Path, kind: str) -> list[dict[str, float]]:
    """Without what a clock says."""
    rows = [r for r in read_rows(run / "log.jsonl") if r["kind"] == kind]
    return [{k: v for k, v in r.items() if k != "seconds"} for r in rows]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, _synthetic_store: Path) -> Path:
    """An undisturbed run."""
    run = tmp_path_factory.mktemp("reference") / "run"
    _end(_start(_synthetic_store, run))
    return run


@pytest.mark.slow
def test_a_run_leaves_a_generator_and_what_explains_it(finished: Path) -> None:
    net, about = load_generator(finished / "generator.safetensors"), None
    about = read_generator(finished / "generator.safetensors")
    assert net.settings == SETTINGS.generator and net.spec.face_px == 32
    assert about["step"] == 24 and about["sync"] == "base" and about["speakers"] == 4
    assert {"l1", "psnr_db", "sharpness", "sync", "sync_truth"} == set(about["heldout"])
    (data,) = _rows(finished, "data")
    assert data["sync_rests_at"] == pytest.approx(about["heldout"]["sync_truth"], rel=1e-3)
    sheets = sorted(p.name for p in (finished / "samples").iterdir())
    assert sheets == ["step-000010.png", "step-000020.png", "step-000024.png"]
    sheet = cv2.imread(str(finished / "samples" / sheets[0]))
    assert sheet.shape == (5 * (16 + 64), 4 * 64, 3) and sheet.std() > 10
    assert [r["step"] for r in _rows(finished, "measure")] == [10, 20, 24]
    assert [r["step"] for r in _rows(finished, "step")] == [1, 10, 20, 24]
    assert {"fooling", "sync", "l1", "gradient_norm"} <= set(_rows(finished, "step")[-1])
    kept = sorted((finished / "snapshots").iterdir())
    assert [p.name for p in kept] == ["step-000012.safetensors", "step-000024.safetensors"]
    assert read_generator(kept[0])["step"] == 12
    first, last, newest = (load_file(p) for p in (*kept, finished / "generator.safetensors"))
    assert all(torch.equal(last[key], newest[key]) for key in newest)
    assert any(not torch.equal(first[key], last[key]) for key in last)
    assert not list(finished.rglob("*.tmp"))


@pytest.mark.slow
def test_killed_twice_and_resumed_it_is_the_same_run(
    finished: Path, tmp_path: Path, _synthetic_store: Path
) -> None:
    run = tmp_path / "run"
    for step in (3, 14):  # before and after the quality discriminator joined
        process = _start(_synthetic_store, run)
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline and process.poll() is None:
            progress = read_progress(run)
            if progress and progress.step >= step:
                break
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        progress = read_progress(run)
        assert progress and step <= progress.step < 24
    _end(_start(_synthetic_store, run))
    assert _rows(run, "step") == _rows(finished, "step")
    assert _rows(run, "measure") == _rows(finished, "measure")
    one, other = (load_file(r / "generator.safetensors") for r in (run, finished))
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.slow
def test_a_finished_run_that_is_resumed_stays_as_it_is(
    finished: Path, _synthetic_store: Path
) -> None:
    before = (finished / "generator.safetensors").read_bytes()
    rows = list(read_rows(finished / "log.jsonl"))
    path = train_generator(ClipStore(_synthetic_store), finished, SETTINGS, resume=True)
    assert path.read_bytes() == before and list(read_rows(finished / "log.jsonl")) == rows


@pytest.mark.slow
def test_a_run_that_was_killed_before_its_last_measurement_ends_it(
    finished: Path, tmp_path: Path, _synthetic_store: Path
) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    early = run / "snapshots" / "step-000012.safetensors"
    shutil.copy(early, run / "generator.safetensors")  # that of a measurement before
    path = train_generator(ClipStore(_synthetic_store), run, SETTINGS, resume=True)
    assert read_generator(path)["step"] == 24
    one, other = (load_file(r / "generator.safetensors") for r in (run, finished))
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_store_of_turned_faces_is_refused(tiny_store: ClipStore, tmp_path: Path) -> None:
    tiny_store.spec = replace(tiny_store.spec, crop="aligned")
    with pytest.raises(RunError, match="faces are cut aligned"):
        train_generator(tiny_store, tmp_path / "run", SETTINGS)


@pytest.mark.slow
def test_it_learns_without_a_sync_loss(tiny_store: ClipStore, tmp_path: Path) -> None:
    settings = replace(
        SETTINGS, sync="none", gan_from=1.0, steps=60, measure_steps=30, save_seconds=100.0
    )
    train_generator(tiny_store, tmp_path / "run", settings)
    rows = _rows(tmp_path / "run", "step")
    assert set(rows[-1]) & {"sync", "fooling"} == set()
    assert rows[-1]["l1"] < 0.8 * rows[0]["l1"]
    assert "sync" not in read_generator(tmp_path / "run" / "generator.safetensors")["heldout"]


def test_ctrl_c_saves_and_resumes(tiny_store: ClipStore, tmp_path: Path) -> None:
    settings = replace(SETTINGS, sync="none", steps=3, batch=2, save_seconds=100.0)
    run, interrupt = tmp_path / "run", Interrupt()
    interrupt.asked = True
    with pytest.raises(KeyboardInterrupt), ExitStack() as held:
        GeneratorTrainer(tiny_store, run, settings, False, interrupt, held).train()
    progress = read_progress(run)
    assert progress is not None and progress.step == 1
    with pytest.raises(RunError, match="--resume"):
        train_generator(tiny_store, run, settings)
    train_generator(tiny_store, run, settings, resume=True)
    assert [r["step"] for r in _rows(run, "step")] == [1, 3]
    assert len(_rows(run, "data")) == 1


def test_a_run_has_one_process(tiny_store: ClipStore, tmp_path: Path) -> None:
    settings = replace(SETTINGS, sync="none", steps=1, batch=2)
    run, begun = tmp_path / "run", tmp_path / "begun"
    with ExitStack() as held:
        GeneratorTrainer(tiny_store, run, settings, False, Interrupt(), held).train()
        with pytest.raises(RunError, match="no other process at work on this run"):
            train_generator(tiny_store, run, settings, resume=True)
        begun.mkdir()
        held.callback(Lock(begun, run=True).release)
        with pytest.raises(RunError, match="no other process at work on this run"):
            train_generator(tiny_store, begun, settings)
    assert [path.name for path in begun.iterdir()] == ["lock"]
    train_generator(tiny_store, run, settings, resume=True)  # it was let go


def test_a_run_goes_on_with_the_clips_that_it_began_with(
    tiny_store: ClipStore, tmp_path: Path
) -> None:
    run, rows = tmp_path / "run", (tiny_store.root / "manifest.jsonl").read_text()
    settings = replace(SETTINGS, sync="none", steps=2, batch=2)
    interrupt = Interrupt()
    interrupt.asked = True
    with pytest.raises(KeyboardInterrupt), ExitStack() as held:
        begun = GeneratorTrainer(tiny_store, run, settings, False, interrupt, held)
        begun.train()
    more = [json.loads(row) for row in rows.splitlines() if '"speaker4"' in row][:1]
    more[0].update(key="new", id=more[0]["id"].replace(more[0]["key"], "new"), speaker="zoe")
    (tiny_store.root / "manifest.jsonl").write_text(rows + json.dumps(more[0]) + "\n")
    (tiny_store.root / "split.json").unlink()
    with ExitStack() as held:
        again = GeneratorTrainer(ClipStore(tiny_store.root), run, settings, True, Interrupt(), held)
        assert again.split == begun.split
    left = [row for row in rows.splitlines() if '"speaker4"' not in row]
    (tiny_store.root / "manifest.jsonl").write_text("\n".join(left) + "\n")
    with pytest.raises(RunError, match="2 of the 10 clips that"):
        train_generator(ClipStore(tiny_store.root), run, settings, resume=True)


def test_a_generator_whose_numbers_overflow_ends_its_run(
    tiny_store: ClipStore, tmp_path: Path
) -> None:
    """Its way back from NaN would end the process, on a CPU."""
    run = tmp_path / "run"
    settings = replace(
        SETTINGS, sync="none", steps=400, batch=2, learning_rate=1e30, save_seconds=0.0
    )
    with pytest.raises(RunError, match=r"no loss or gradient was a finite|draws no finite"):
        train_generator(tiny_store, run, settings)
    progress = read_progress(run)
    assert progress is None or progress.step < 60


def test_what_is_refused_leaves_no_run(tiny_store: ClipStore, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(RunError, match="--aligned"):
        train_generator(tiny_store, run, replace(SETTINGS, sync="none", aligned="nowhere"))
    assert not run.exists()
    with pytest.raises(RunError, match=r"is a clip store\. Give the run a folder of its own"):
        train_generator(tiny_store, tiny_store.root, SETTINGS)
    assert not (tiny_store.root / "settings.json").exists()


def test_several_processes_are_refused(
    tiny_store: ClipStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else each would write the same folder."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RunError, match="without torchrun"):
        train_generator(tiny_store, tmp_path / "run", SETTINGS, resume=True)
    assert not (tmp_path / "run").exists()


def test_it_hears_with_a_discriminator_that_stays_as_it_is(
    tiny_store: ClipStore, tiny_net: Discriminator, tmp_path: Path
) -> None:
    ear = str(save(tiny_net, tmp_path / "d.safetensors"))
    settings = replace(SETTINGS, sync="none", steps=4, batch=2, ear=ear)
    generator = load_generator(train_generator(tiny_store, tmp_path / "run", settings))
    assert isinstance(generator.sound, Ear) and generator.settings.ear_width == 8
    tower = generator.sound.tower.state_dict()
    assert all(torch.equal(tower[k], v) for k, v in tiny_net.audio.state_dict().items())
    assert generator.sound.given.weight.shape == (16, 32)
    again = train_generator(tiny_store, tmp_path / "run", settings, resume=True)
    assert load_generator(again).settings == generator.settings


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (ClipSpec(mel=MelSpec(fmin_hz=80.0)), r"--ear .*: expected a discriminator with mel="),
        (ClipSpec(fps=30), r"--ear .*: expected a discriminator with fps=25 .* got 30"),
    ],
)
def test_an_ear_for_other_sound_is_refused(
    tiny_store: ClipStore, tmp_path: Path, spec: ClipSpec, message: str
) -> None:
    net = Discriminator(spec, Architecture(face_width=8, audio_width=8, embed_dim=32))
    settings = replace(SETTINGS, sync="none", ear=str(save(net, tmp_path / "d.safetensors")))
    with pytest.raises(RunError, match=message):
        train_generator(tiny_store, tmp_path / "run", settings)
    with pytest.raises(WeightsError, match="nowhere"):
        train_generator(tiny_store, tmp_path / "run", replace(settings, ear="nowhere"))
    assert not (tmp_path / "run").exists()


def test_the_command(
    tiny_store: ClipStore,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = tmp_path / "run"
    args = ["--data", str(tiny_store.root), "--out", str(run), "--sync", "none", "--steps", "1"]
    args += ["--batch", "2", "--generator.width", "8", "--generator.size", "32"]
    assert main(args) == 0
    assert "1 steps. On held-out clips: L1" in capsys.readouterr().out
    assert main(args) == 2
    assert "Add --resume" in capsys.readouterr().err
    assert main([*args, "--resume", "--learning_rate", "1e-3"]) == 0
    assert "--learning_rate of now: not used" in capsys.readouterr().out
    assert main([*args[:6], "--resume", "--steps", "0"]) == 0  # the default, but not what is stored
    assert "--steps of now: not used" in capsys.readouterr().out
    assert main([*args[:2], "--out", str(tmp_path / "b"), "--sync", "nowhere.pt"]) == 2
    assert "nowhere.pt" in capsys.readouterr().err
    # Names as they are typed: a number is one, too.
    named = [*args[:2], "--out", str(tmp_path / "c"), "--heldout_speakers", "[1001]"]
    monkeypatch.setattr(sys, "argv", ["train", *named])  # as `python -m` calls it
    assert main() == 2
    assert "1001" in capsys.readouterr().err
