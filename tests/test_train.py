"""The three stages end to end on a tiny store: files, log, resume after kill -9 in each stage."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_run import PROGRAM, SETTINGS

from syncdisc_plugin import SyncLoss, weights
from syncdisc_plugin.data.ahead import threads_beside
from syncdisc_plugin.data.embed import embed_clips, embed_frames
from syncdisc_plugin.data.lock import Lock
from syncdisc_plugin.data.manifest import read_rows
from syncdisc_plugin.data.split import Split, split_store
from syncdisc_plugin.data.store import ClipStore
from syncdisc_plugin.errors import RunError, StoreError, WeightsError
from syncdisc_plugin.evaluate.report import write_report
from syncdisc_plugin.evaluate.views import load_with_view, view_for
from syncdisc_plugin.nn import Architecture, Discriminator
from syncdisc_plugin.train import GapSettings, StageSettings, TrainSettings, train
from syncdisc_plugin.train.clips import clips_for, judge_for
from syncdisc_plugin.train.folder import run_split
from syncdisc_plugin.train.interrupt import Interrupt
from syncdisc_plugin.train.progress import Progress, read_progress
from syncdisc_plugin.train.schedule import learning_rate, plan_steps
from syncdisc_plugin.train.validation import beats_chance


def _start(store: Path, run: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(store), str(run), json.dumps(asdict(SETTINGS))],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output.decode()[-2000:]


def _kill_in_stage(store: Path, run: Path, stage: int, sign: signal.Signals) -> None:
    """Start, wait until some steps of the stage are saved, kill."""
    process = _start(store, run)
    deadline = time.monotonic() + 120
    try:
        while time.monotonic() < deadline and process.poll() is None:
            progress = read_progress(run)
            if progress and progress.stage == stage and progress.step >= 3:
                process.send_signal(sign)
                process.communicate(timeout=60)
                return
            time.sleep(0.005)
    finally:
        process.kill()
        process.communicate()
    pytest.fail(f"stage {stage} was never seen; exit status {process.returncode}")


def _heldout(run: Path, stage: int) -> dict[str, object]:
    return json.loads((run / "heldout" / f"stage{stage}.json").read_text())["figures"]


def _steps(run: Path) -> list[tuple[object, ...]]:
    rows = read_rows(run / "log.jsonl")
    return [(r["stage"], r["step"], r["loss"]) for r in rows if r["kind"] == "step"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, _synthetic_store: Path) -> Path:
    """An undisturbed run."""
    run = tmp_path_factory.mktemp("train") / "run"
    process = _start(_synthetic_store, run)
    _end(process)
    return run


def test_a_run_leaves_three_checkpoints_and_what_explains_them(finished: Path) -> None:
    for stage in (1, 2, 3):
        assert (finished / f"stage{stage}.safetensors").is_file()
        figures = _heldout(finished, stage)
        assert figures["n_speakers"] == 1 and figures["n_clips"] == 2
    verdicts = list(read_rows(finished / "filter.jsonl"))
    assert len(verdicts) == 8  # 4 training speakers with 2 clips each
    assert {v["verdict"] for v in verdicts} <= {"kept", "shifted", "dropped"}
    assert not list(finished.rglob("*.tmp")) and not list(finished.rglob("*.pt"))


def test_chance_stands_beside_every_loss(finished: Path) -> None:
    rows = [r for r in read_rows(finished / "log.jsonl") if r["kind"] == "step"]
    assert {r["stage"] for r in rows} == {1, 2, 3}
    assert all(r["chance"] > 0.5 and r["loss"] > 0 for r in rows)


def test_stage_1_learns(finished: Path) -> None:
    measures = [r for r in read_rows(finished / "log.jsonl") if r["kind"] == "measure"]
    first, last = measures[0]["pair_accuracy"], _heldout(finished, 3)["pair_accuracy"]
    assert abs(first - 0.5) < 0.15
    assert isinstance(last, float) and last > first + 0.1


def test_the_gap_is_asked_for_a_step_more_than_was_measured(finished: Path) -> None:
    rows = [r for r in read_rows(finished / "log.jsonl") if r["kind"] == "measure"]
    first = next(r for r in rows if r["stage"] == 2)
    assert first["target"] == pytest.approx(first["gap"] + SETTINGS.gap.step)


def test_stage_3_serves_as_a_sync_loss(finished: Path) -> None:
    sync = SyncLoss(finished / "stage3.safetensors")
    frames = torch.rand(2, 3, 5, 96, 96, requires_grad=True)
    sync(frames, torch.zeros(2, 1, 80, 16)).backward()
    assert frames.grad is not None and frames.grad.abs().sum() > 0


@pytest.mark.slow
def test_kill_in_every_stage_and_resume_gives_the_same_run(
    finished: Path, tmp_path: Path, _synthetic_store: Path
) -> None:
    run = tmp_path / "run"
    for stage in (1, 2, 3):
        _kill_in_stage(_synthetic_store, run, stage, signal.SIGKILL)
    _end(_start(_synthetic_store, run))
    for stage in (1, 2, 3):
        assert _heldout(run, stage) == _heldout(finished, stage)
    a, b = (load_file(r / "stage3.safetensors") for r in (run, finished))
    assert all(torch.equal(a[key], b[key]) for key in b)
    assert _steps(run) == _steps(finished)  # and no row twice


def test_ctrl_c_may_end_what_reads_the_output_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `2>&1 | tee log` does."""

    def broken(*_: object) -> int:
        raise BrokenPipeError

    monkeypatch.setattr("syncdisc_plugin.train.interrupt.os.write", broken)
    with Interrupt() as interrupt:
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupt.asked


def test_a_filter_is_followed_where_most_clips_are_too_short_for_a_chunk(
    tiny_store: ClipStore, tmp_path: Path
) -> None:
    """They are left out anyway; what is left of the others counts."""
    clips = [replace(c, n_frames=2 * c.n_frames, n_mels=2 * c.n_mels) for c in tiny_store.clips[:4]]
    short = [replace(tiny_store.clips[5], id=f"s{i}/0") for i in range(200)]
    rows = [
        {
            "clip_id": c.id,
            "verdict": "dropped" if c in [*short, clips[0]] else "kept",
            "lag_frames": 0,
        }
        for c in [*clips, *short]
    ]
    (tmp_path / "filter.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    split = Split([*clips, *short], [], "")
    items, words = clips_for(2, tmp_path, tiny_store, split, short[0].n_frames + 1, 0)
    assert [item.clip for item in items] == clips[1:] and not words


@pytest.mark.slow
def test_ctrl_c_saves_the_step_in_hand(tmp_path: Path, _synthetic_store: Path) -> None:
    run = tmp_path / "run"
    _kill_in_stage(_synthetic_store, run, 1, signal.SIGINT)
    progress = read_progress(run)
    assert progress is not None and progress.stage == 1 and progress.step >= 3
    _end(_start(_synthetic_store, run))
    assert (run / "stage3.safetensors").is_file()


def test_a_folder_with_a_run_is_not_overwritten(finished: Path, tiny_store: ClipStore) -> None:
    before = (finished / "settings.json").read_bytes()
    with pytest.raises(RunError, match="--resume"):
        train(tiny_store, finished, replace(SETTINGS, seed=9))
    assert (finished / "settings.json").read_bytes() == before


def test_resuming_a_finished_run_changes_nothing(finished: Path, tiny_store: ClipStore) -> None:
    before = (finished / "stage3.safetensors").read_bytes()
    assert train(tiny_store, finished, SETTINGS, resume=True) == finished / "stage3.safetensors"
    assert (finished / "stage3.safetensors").read_bytes() == before


def test_a_run_goes_on_on_another_device(
    finished: Path, tiny_store: ClipStore, tmp_path: Path
) -> None:
    """What a machine with a GPU began."""
    run = shutil.copytree(finished, tmp_path / "run")
    stored = json.loads((run / "settings.json").read_text())
    (run / "settings.json").write_text(json.dumps({**stored, "device": "cuda"}))
    assert train(tiny_store, run, SETTINGS, resume=True) == run / "stage3.safetensors"


def test_a_damaged_state_is_named(tmp_path: Path) -> None:
    (tmp_path / "state.safetensors").write_bytes(b"not this")
    with pytest.raises(RunError, match=r"state\.safetensors: damaged"):
        read_progress(tmp_path)


def test_settings_survive_json() -> None:
    stored = json.loads(json.dumps(asdict(SETTINGS)))
    assert TrainSettings.from_dict(stored) == SETTINGS


@pytest.mark.parametrize(
    ("change", "flag"),
    [
        ({"steps": 3}, "--steps"),
        ({"minutes": 0.0}, "--minutes"),
        ({"chunk_frames": 5}, "--chunk_frames"),
        ({"precision": "fp8"}, "--precision"),
        ({"stage3": {"share": 0}}, "--stage3.share"),
        ({"stage1": {"learning_rate": -1.0}}, "--stage1.learning_rate"),
        ({"seed": -1}, "--seed: expected a number of at least 0, got -1"),
        ({"batch_clips": 0}, "--batch_clips: expected a number of at least 1, got 0"),
        ({"heldout_frames": 0}, "--heldout_frames"),
        ({"heldout_share": -1.0}, "--heldout_share"),
        ({"ema": 1.5}, "--ema: expected a number of at least 0 and below 1, got 1.5"),
        ({"weight_decay": float("nan")}, "--weight_decay"),
        ({"gap": {"preset": 3}}, "--gap.preset"),
        ({"filter": {"max_shift_frames": 40}}, "--filter.max_shift_frames"),
        ({"architecture": {"face_width": 0}}, "architecture.face_width"),
    ],
)
def test_impossible_settings_name_the_flag(change: dict[str, object], flag: str) -> None:
    with pytest.raises(ValueError, match=flag):
        TrainSettings.from_dict(change)


def test_steps_are_divided_by_the_shares() -> None:
    settings = TrainSettings(steps=100)
    steps = [plan_steps(Progress(stage=k), k, [0.5, 0.2, 0.3], settings, 0.0) for k in (1, 2, 3)]
    assert steps == [50, 20, 30]


def test_minutes_become_steps_at_the_measured_pace() -> None:
    settings = TrainSettings(minutes=10)
    shares = [0.5, 0.2, 0.3]
    unknown = Progress(stage=1)
    assert plan_steps(unknown, 1, shares, settings, 0.0) == 0
    timed = Progress(stage=1, step_seconds=1.0)
    assert plan_steps(timed, 1, shares, settings, 0.0) == pytest.approx(0.9 * 300, abs=1)
    # Half of stage 1 done in twice the time: what is left is planned at what is left.
    late = Progress(stage=1, step=135, steps=270, step_seconds=2.0)
    planned = plan_steps(late, 1, shares, settings, 270.0)
    assert planned == pytest.approx(135 + 0.9 * (330 * 0.25 / 0.75) / 2.0, abs=1)


@pytest.mark.parametrize("minutes", [2, 10])
def test_planning_anew_does_not_prolong_a_budget(minutes: float) -> None:
    """A plan after every measurement: all three stages, at 2.5 s a step, take what was given."""
    settings, spent = TrainSettings(minutes=minutes), 0.0
    for stage in (1, 2, 3):
        p = Progress(stage=stage, step_seconds=2.5)
        p.steps = plan_steps(p, stage, [0.35, 0.25, 0.4], settings, spent)
        while p.step < p.steps:
            p.step, spent = p.step + 1, spent + 2.5
            p.steps = plan_steps(p, stage, [0.35, 0.25, 0.4], settings, spent)
        assert p.step >= 10
    assert spent <= max(60 * minutes, 3 * 10 * 2.5) + 2.5


def test_learning_rate_warms_up_and_falls() -> None:
    how = StageSettings(learning_rate=1.0, final_rate=0.02)
    rates = [learning_rate(how, step, 400) for step in range(400)]
    assert rates[0] < 0.1 and max(rates) == pytest.approx(1.0, abs=0.01)
    assert rates[-1] < 0.03
    top = rates.index(max(rates))
    assert all(a >= b for a, b in zip(rates[top:], rates[top + 1 :], strict=False))


def test_a_flat_score_ends_a_stage_early(
    tiny_store: ClipStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_scores(monkeypatch, pair=0.7, pm=0.4)
    train(tiny_store, tmp_path / "run", replace(SETTINGS, measures=8))
    rows = list(read_rows(tmp_path / "run" / "log.jsonl"))
    ended = {r["stage"]: r for r in rows if r["kind"] == "stage"}
    assert "plateau" in ended[1]["verdict"] and "plateau" in ended[3]["verdict"]
    assert ended[1]["step"] < 21  # stage 1's share of the 60 steps


def give_scores(monkeypatch: pytest.MonkeyPatch, pair: float, pm: float) -> None:
    """Whatever the net: these on held-out clips."""
    monkeypatch.setattr("syncdisc_plugin.evaluate.metrics.pair_accuracy", lambda clips: pair)
    flat = {"5": pm, "15": pm}
    monkeypatch.setattr("syncdisc_plugin.evaluate.metrics.pm_accuracy", lambda *_: flat)


def test_no_stage_ends_early_in_its_first_half(
    tiny_store: ClipStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_scores(monkeypatch, pair=0.7, pm=0.4)
    settings = replace(SETTINGS, steps=20, last_stage=1, measures=20)
    settings = replace(settings, stage1=replace(settings.stage1, patience=2))
    train(tiny_store, tmp_path / "run", settings)
    rows = list(read_rows(tmp_path / "run" / "log.jsonl"))
    assert [r["step"] for r in rows if r["kind"] == "stage"] == [10]


def test_chance_is_no_plateau_and_is_said(
    tiny_store: ClipStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    give_scores(monkeypatch, pair=0.5, pm=0.09)
    settings = replace(SETTINGS, steps=20, last_stage=1, measures=20)
    train(tiny_store, tmp_path / "run", settings)
    rows = list(read_rows(tmp_path / "run" / "log.jsonl"))
    assert max(r["step"] for r in rows) == 20 and not [r for r in rows if r["kind"] == "stage"]
    assert "stage 1: no better than chance on held-out clips" in capsys.readouterr().out


def test_what_beats_chance() -> None:
    assert beats_chance([1.4, 1.2, 0.9]) and beats_chance([0.9])
    assert not beats_chance([0.9, 0.4, 0.6]) and not beats_chance([0.58, 0.6, 0.59])


def test_a_run_may_end_after_a_stage(tiny_store: ClipStore, tmp_path: Path) -> None:
    run = tmp_path / "run"
    path = train(tiny_store, run, replace(SETTINGS, steps=20, last_stage=1))
    assert path == run / "stage1.safetensors" and path.exists()
    assert not (run / "stage2.safetensors").exists() and not (run / "filter.jsonl").exists()
    steps = [r["step"] for r in read_rows(run / "log.jsonl") if r["kind"] == "step"]
    assert max(steps) == 20  # the whole budget is stage 1's
    text = write_report(run).read_text(encoding="utf-8")
    assert "This run made <code>stage1.safetensors</code>, the first discriminator" in text
    assert "run/stage1.safetensors" in text and "not finished" not in text


def test_a_stalled_gap_ends_with_a_line_and_usable_weights(
    tiny_store: ClipStore, tmp_path: Path
) -> None:
    stubborn = GapSettings(progress=2.0, patience=2)  # no rise is ever enough
    train(tiny_store, tmp_path / "run", replace(SETTINGS, measures=5, gap=stubborn))
    (ended,) = (
        r
        for r in read_rows(tmp_path / "run" / "log.jsonl")
        if (r["kind"], r["stage"]) == ("stage", 2)
    )
    assert "stalled: gap" in ended["verdict"] and "target" in ended["verdict"]
    sync = SyncLoss(tmp_path / "run" / "stage2.safetensors")
    assert torch.isfinite(sync(torch.rand(1, 3, 5, 96, 96), torch.zeros(1, 1, 80, 16)))
    assert (tmp_path / "run" / "stage3.safetensors").exists()


def test_a_reference_gives_the_zero(
    tiny_store: ClipStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lag that the reference sees in the set is undone in all that a run trains on."""
    from syncdisc_plugin.data import filter as filtering
    from syncdisc_plugin.train import clips, validation

    lags: list[int] = []
    judged: list[str] = []

    def embedded(*given: Any) -> Any:
        lags.append(given[4])
        return embed_clips(*given)

    def loaded(path: Path, device: torch.device) -> Discriminator:
        judged.append(path.name)
        return weights.load(path, device)

    monkeypatch.setattr(filtering.FilterResult, "common_lag", 4)
    monkeypatch.setattr(validation, "embed_clips", embedded)
    monkeypatch.setattr(clips, "weights", SimpleNamespace(load=loaded))
    run = tmp_path / "run"
    train(tiny_store, run, replace(SETTINGS, steps=10, reference="base"))
    assert json.loads((run / "reference.json").read_text())["lag_frames"] == 4
    assert len(lags) >= 3 and set(lags) == {4}  # what the best weights are chosen by
    assert judged == ["stage1.safetensors", "stage2.safetensors"]
    stage = json.loads((run / "heldout" / "stage3.json").read_text())
    n = sum(tiny_store.windows(c) - 4 for c in tiny_store.clips if c.speaker == "speaker4")
    assert stage["figures"]["n_windows"] == n


def test_a_run_goes_on_from_other_weights(tiny_store: ClipStore, tmp_path: Path) -> None:
    """Fine-tuning: they are where it starts, they stay with the run, and say what its net is."""
    torch.manual_seed(3)
    small = Architecture(face_width=8, audio_width=16, embed_dim=32)
    given = tmp_path / "given.safetensors"
    net = Discriminator(tiny_store.spec, small)
    weights.save(net, given)
    run = tmp_path / "run"
    settings = replace(
        SETTINGS, steps=40, last_stage=1, init_from=str(given), architecture=Architecture()
    )
    path = train(tiny_store, run, settings)
    start = weights.load(run / "stage0.safetensors").state_dict()
    assert all(torch.equal(start[name], value) for name, value in net.state_dict().items())
    trained = weights.load(path)
    assert trained.arch == small
    moved = trained.face.state_dict()
    far = [
        (moved[n].float() - v.float()).norm() / v.float().norm().clamp(min=1e-6)
        for n, v in net.face.state_dict().items()
        if v.ndim > 1
    ]
    assert 0 < max(far) < 0.5  # another seed's would be some 1.4 away
    assert weights.read_about(path)["init_from"] == str(given)
    given.unlink()
    (run / "state.safetensors").unlink()
    train(tiny_store, run, settings, resume=True)
    again = weights.load(path).state_dict()
    assert all(torch.equal(again[name], value) for name, value in trained.state_dict().items())


def test_what_is_refused_leaves_no_run_behind(
    tiny_store: ClipStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from syncdisc_plugin.data import filter as filtering

    run = tmp_path / "run"
    with pytest.raises(RunError, match=r"is a clip store\. Give the run a folder of its own"):
        train(tiny_store, tiny_store.root, SETTINGS)
    assert not (tiny_store.root / "settings.json").exists()
    with pytest.raises(ValueError, match="chunk_frames"):
        train(tiny_store, run, replace(SETTINGS, chunk_frames=500))
    assert not (run / "settings.json").exists()
    with pytest.raises(WeightsError, match="bsae"):
        train(tiny_store, run, replace(SETTINGS, reference="bsae"))
    assert not (run / "settings.json").exists()
    with pytest.raises(ValueError, match=r"--architecture: .*face_width=32.*got.*=8"):
        train(tiny_store, run, replace(SETTINGS, init_from="base"))
    # Chunks as long as the shortest clip, which a lag shortens.
    with monkeypatch.context() as patch:
        patch.setattr(filtering.FilterResult, "common_lag", 4)
        exact = replace(SETTINGS, chunk_frames=70, reference="base")
        with pytest.raises(ValueError, match="or are by their lag"):
            train(tiny_store, run, exact)
    assert not any(run.iterdir())
    train(tiny_store, run, replace(SETTINGS, steps=12, seed=1_732_612_345))


@pytest.mark.parametrize("name", ["filter.jsonl", "filter-again.jsonl", "reference.json"])
def test_what_another_command_left_is_not_taken_for_the_runs_own(
    tiny_store: ClipStore, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_text("{}")
    with pytest.raises(RunError, match=rf"holds {name} but no settings\.json"):
        train(tiny_store, tmp_path, SETTINGS, resume=True)


def test_a_run_goes_on_with_the_clips_that_it_began_with(
    tiny_store: ClipStore, tmp_path: Path
) -> None:
    root = tmp_path / "store"
    shutil.copytree(tiny_store.root, root)
    (root / "split.json").unlink(missing_ok=True)
    train(ClipStore(root), tmp_path / "run", replace(SETTINGS, steps=10, last_stage=1))
    began = run_split(tmp_path / "run", ClipStore(root), SETTINGS)
    rows = (root / "manifest.jsonl").read_text()
    # Two more clips of one who is held out.
    more = [json.loads(row) for row in rows.splitlines() if '"speaker4"' in row][:2]
    for i, row in enumerate(more):
        row.update(key=f"new{i}", id=row["id"].replace(row["key"], f"new{i}"), source="new.mp4")
        rows += json.dumps(row) + "\n"
    (root / "manifest.jsonl").write_text(rows)
    assert run_split(tmp_path / "run", ClipStore(root), SETTINGS) == began
    assert len(split_store(ClipStore(root), stored=True).heldout) == len(began.heldout) + 2
    # A clip whose shard is damaged is left out, another store is not taken for this one.
    first, second = (clip.id for clip in began.train[:2])
    left = [row for row in rows.splitlines() if first not in row]
    (root / "manifest.jsonl").write_text("\n".join(left) + "\n")
    split = run_split(tmp_path / "run", ClipStore(root), SETTINGS)
    assert split.train == began.train[1:] and split.heldout == began.heldout
    left = [row for row in left if second not in row]
    (root / "manifest.jsonl").write_text("\n".join(left) + "\n")
    with pytest.raises(RunError, match=f"2 of the 10 clips that .* {first}"):
        train(ClipStore(root), tmp_path / "run", SETTINGS, resume=True)


def test_a_net_whose_numbers_overflow_ends_its_run(tiny_store: ClipStore, tmp_path: Path) -> None:
    run = tmp_path / "run"
    huge = replace(SETTINGS.stage1, learning_rate=1e30)
    settings = replace(SETTINGS, steps=400, last_stage=1, stage1=huge, save_steps=20)
    with pytest.raises(RunError, match=r"since step \d+ no loss or gradient was a finite number"):
        train(tiny_store, run, settings)
    progress = read_progress(run)
    assert progress is None or progress.step < 60  # what cannot learn is not saved


def test_a_reference_sees_the_store_in_its_own_size(tiny_store: ClipStore, tmp_path: Path) -> None:
    """Not the pixels at its own places in larger crops: those show another part of the face."""
    spec = replace(tiny_store.spec, face_px=192)
    larger = view_for(tiny_store, spec)
    judge, view = load_with_view("base", larger, torch.device("cpu"))
    clip = tiny_store.clips[0]
    want, got = (embed_frames(judge, s.frames(clip)[:12]) for s in (tiny_store, view))
    assert (want * got).sum(1).min() > 0.95
    aligned = view_for(tiny_store, tiny_store.spec)
    aligned.spec = replace(tiny_store.spec, crop="aligned")
    with pytest.raises(StoreError, match="another frame rate, crop or mel"):
        load_with_view("base", aligned, torch.device("cpu"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(tiny_store: ClipStore, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"--device: cuda .* no GPU"):
        train(tiny_store, tmp_path / "run", replace(SETTINGS, device="cuda"))


def test_one_process_at_a_time_is_at_work_on_a_run(tiny_store: ClipStore, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    held = Lock(run, run=True)
    with pytest.raises(RunError, match="no other process at work on this run"):
        train(tiny_store, run, SETTINGS)
    assert sorted(path.name for path in run.iterdir()) == ["lock"]
    held.release()
    train(tiny_store, run, replace(SETTINGS, last_stage=1))
    held = Lock(run, run=True)  # it was let go
    with pytest.raises(RunError, match="Wait for it or stop it, or give another --out"):
        train(tiny_store, run, SETTINGS, resume=True)
    held.release()


def test_a_filter_that_is_stopped_leaves_nothing(
    finished: Path, tiny_store: ClipStore, tmp_path: Path
) -> None:
    shutil.copy(finished / "stage1.safetensors", tmp_path)
    split, interrupt = split_store(tiny_store), Interrupt()
    settings = replace(SETTINGS, precision="fp32")

    def judged() -> object:
        device = torch.device("cpu")
        return judge_for(2, tmp_path, tiny_store, split, settings, device, 0, interrupt)

    interrupt.asked = True
    assert judged() is None and not (tmp_path / "filter.jsonl").exists()
    interrupt.asked = False
    assert judged() is not None and (tmp_path / "filter.jsonl").exists()


def test_passes_over_the_clips_count_in_a_budget_of_minutes() -> None:
    settings = TrainSettings(minutes=10)
    timed = Progress(step_seconds=1.0)
    shares = [0.5, 0.2, 0.3]
    alone = plan_steps(timed, 1, shares, settings, 0.0)
    assert plan_steps(timed, 1, shares, settings, 0.0, aside_s=300.0) == pytest.approx(
        alone / 2, abs=1
    )
    assert plan_steps(timed, 1, shares, settings, 0.0, aside_s=1e6) == 10


def test_threads_that_make_batches_share_the_cores_of_one_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("syncdisc_plugin.data.ahead.cores", lambda: 96)
    monkeypatch.setenv("WORLD_SIZE", "64")  # eight machines
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert threads_beside("cuda") == 8
    monkeypatch.setattr("syncdisc_plugin.data.ahead.cores", lambda: 32)
    assert threads_beside("cuda") == 3
    assert threads_beside("cpu") == 1
