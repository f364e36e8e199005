"""The command line: help, exit codes, one line per error, and the verbs in a row."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import syncdisc_plugin
from syncdisc_plugin import weights
from syncdisc_plugin.cli import VERBS, main
from syncdisc_plugin.cli.parsing import add_prepare, new_parser, say_what_stays, typed
from syncdisc_plugin.data.prepare import PrepareSettings
from syncdisc_plugin.data.store import ClipStore
from syncdisc_plugin.demo.footage import write_footage
from syncdisc_plugin.faces import TrackSettings
from syncdisc_plugin.media import write_video
from syncdisc_plugin.nn import Architecture, Discriminator
from syncdisc_plugin.spec import ClipSpec, MelSpec
from syncdisc_plugin.train.settings import TrainSettings

Run = Callable[..., tuple[int, str, str]]
PREPARE = [f"--{f.name}" for f in dataclasses.fields(PrepareSettings)]
TRACK = [f"--track.{f.name}" for f in dataclasses.fields(TrackSettings)]
TRAIN = [f"--{f.name}" for f in dataclasses.fields(TrainSettings)]
SETTINGS = {
    "demo": ["--out", "--resume"],
    "run": ["--videos", "--out", "--resume", "--config", *PREPARE, *TRACK, *TRAIN],
    "prepare": [
        "paths",
        "--out",
        "--shard",
        "--layout",
        "--layout_out",
        "--layout_run",
        *PREPARE,
        *TRACK,
    ],
    "store": ["merge", "verify", "stats", "judge"],
    "train": [
        "--data",
        "--out",
        "--resume",
        "--config",
        *TRAIN,
        "--stage2.learning_rate",
        "--choose.min_face_px",
    ],
    "doctor": ["--data", "--weights", "--device", "--json"],
    "filter": ["--data", "--weights", "--out"],
    "evaluate": [
        *("--weights", "--data", "--videos", "--part", "--json", "--html", "--about"),
        *("--condition_minutes", *PREPARE, *TRACK, "--choose.speaking"),
    ],
    "score": ["videos", "--weights", "--json", "--detector", "--models", *TRACK],
    "export": ["--weights", "--out"],
    "report": ["folder", "--data", "--out", "--choose.min_face_px"],
}


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """main(argv) in this process: exit status, what it printed, what it complained of."""

    def call(*argv: object) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            status = main([str(a) for a in argv])
        except SystemExit as stop:
            status = int(stop.code or 0)
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return call


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small checkpoint of an untrained net."""
    path = tmp_path_factory.mktemp("net") / "small.safetensors"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return weights.save(Discriminator(ClipSpec(), Architecture(8, 8, 32)), path, stage=3)


def check_refused(result: tuple[int, str, str], verb: str, message: str) -> None:
    """Exit 2, and one line that names the verb and matches `message`."""
    status, _, err = result
    assert status == 2, err
    lines = err.strip().splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith(f"syncdisc {verb}: ")
    assert re.search(message, lines[0]), lines[0]
    assert "Traceback" not in err


# --- help


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"]])
def test_help_lists_every_verb(run: Run, argv: list[str]) -> None:
    status, out, err = run(*argv)
    assert (status, err) == (0, "")
    for verb, text in VERBS.items():
        assert re.search(rf"^  {verb} +{re.escape(text)}$", out, re.M)


def test_every_verb_is_described() -> None:
    assert set(SETTINGS) == set(VERBS)


def test_version(run: Run) -> None:
    assert run("--version") == (0, f"syncdisc {syncdisc_plugin.__version__}\n", "")


@pytest.mark.parametrize("verb", SETTINGS)
def test_a_verbs_help_lists_its_settings(run: Run, verb: str) -> None:
    status, out, err = run(verb, "--help")
    assert (status, err) == (0, "")
    listed = set(re.findall(r"^  (?:-h, )?(-{0,2}[a-z_0-9.]+)", out, re.M))
    assert set(SETTINGS[verb]) <= listed
    assert "<class" not in out and "<function" not in out


def test_help_says_what_a_setting_does(run: Run) -> None:
    out = " ".join(run("prepare", "--help")[1].split())
    assert "Detect on every k-th frame" in out and "default: 5" in out
    assert "Processes; 0 takes one per core." in out
    out = " ".join(run("train", "--help")[1].split())
    assert "Wall-clock budget of the three stages" in out
    assert "Where a cosine takes the learning rate" in out


def seconds_of_cpu(argv: list[str]) -> float:
    """CPU seconds of a command: other work on the machine does not count."""
    before = os.times()
    subprocess.run(argv, check=True, capture_output=True, timeout=60)
    after = os.times()
    return (after[2] + after[3]) - (before[2] + before[3])


@pytest.mark.skipif(os.name == "nt", reason="children's CPU time is a POSIX figure")
@pytest.mark.parametrize("flag", ["--help", "--version"])
def test_the_overview_comes_at_once(flag: str) -> None:
    argv = [sys.executable, "-m", "syncdisc_plugin", flag]
    assert min(seconds_of_cpu(argv) for _ in range(3)) < 1.0


def test_the_command_is_the_module() -> None:
    argv = [sys.executable, "-m", "syncdisc_plugin", "sing"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("syncdisc: no command 'sing'. There are: demo, ")


# --- errors


def test_an_unknown_verb(run: Run) -> None:
    status, out, err = run("sing", "--out", "x")
    assert (status, out) == (2, "")
    assert err.count("\n") == 1 and "'sing'" in err and "prepare" in err


@pytest.mark.parametrize(
    "argv",
    [
        ["prepare"],
        ["prepare", "x"],
        ["prepare", "x", "--out", "y", "--no-such-setting", "1"],
        ["prepare", "x", "--out", "y", "--workers", "many"],
        ["prepare", "x", "--out", "y", "--track.min_iou", "high"],
        ["train", "--data", "x"],
        ["filter"],
        ["score"],
    ],
    ids=" ".join,
)
def test_wrong_arguments(run: Run, argv: list[str]) -> None:
    status, out, err = run(*argv)
    assert (status, out) == (2, "")
    assert "error:" in err and "Traceback" not in err


@pytest.mark.parametrize(
    "argv",
    [
        ["train", "--data", "{gone}", "--out", "{new}"],
        ["filter", "--data", "{gone}", "--weights", "{net}", "--out", "{new}"],
        ["evaluate", "--data", "{gone}", "--weights", "{net}"],
    ],
    ids=lambda argv: argv[0],
)
def test_a_missing_store(run: Run, net: Path, tmp_path: Path, argv: list[str]) -> None:
    names = {"gone": tmp_path / "gone", "new": tmp_path / "new", "net": net}
    result = run(*(a.format(**names) for a in argv))
    check_refused(result, argv[0], r"gone: not a clip store .*syncdisc prepare")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "argv",
    [
        ["prepare", "{gone}", "--out", "{new}", "--detector", "none"],
        ["run", "--videos", "{gone}", "--out", "{new}", "--detector", "none"],
        ["evaluate", "--videos", "{gone}", "--weights", "{net}", "--detector", "none"],
        ["score", "{gone}", "--weights", "{net}", "--detector", "none"],
    ],
    ids=lambda argv: argv[0],
)
def test_a_missing_video(run: Run, net: Path, tmp_path: Path, argv: list[str]) -> None:
    names = {"gone": tmp_path / "gone.mp4", "new": tmp_path / "new", "net": net}
    result = run(*(a.format(**names) for a in argv))
    check_refused(result, argv[0], r"gone\.mp4: .*(no such file|No such file)")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("verb", ["prepare", "run"])
def test_a_folder_without_videos(run: Run, tmp_path: Path, verb: str) -> None:
    (tmp_path / "empty").mkdir()
    flag = ["--videos"] if verb == "run" else []
    result = run(verb, *flag, tmp_path / "empty", "--out", tmp_path / "new", "--detector", "none")
    check_refused(result, verb, "no video file in .*empty")


def test_an_unknown_detector_lists_the_known(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("x")
    result = run("prepare", tmp_path, "--out", tmp_path / "new", "--detector", "dlib")
    check_refused(result, "prepare", "detector: expected one of auto, yunet,.* got 'dlib'")


def test_prepare_does_not_write_into_a_foreign_folder(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("x")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("x")
    result = run("prepare", tmp_path / "a.mp4", "--out", tmp_path / "home", "--detector", "none")
    check_refused(result, "prepare", "home: not empty and not a clip store")


@pytest.mark.parametrize("verb", ["run", "train"])
def test_a_run_in_the_folder_needs_resume(
    run: Run, tiny_store: ClipStore, tmp_path: Path, verb: str
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "settings.json").write_text("{}")
    source = ["--videos", tmp_path] if verb == "run" else ["--data", tiny_store.root]
    result = run(verb, *source, "--out", tmp_path / "run")
    check_refused(result, verb, r"run: holds a run\. Add --resume")
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["settings.json"]


def change_metadata(source: Path, path: Path, **changes: str) -> Path:
    with safe_open(source, "pt") as file:
        metadata = file.metadata() | changes
    save_file(load_file(source), path, metadata)
    return path


def bad_weights(kind: str, net: Path, folder: Path) -> tuple[object, str]:
    """A checkpoint that cannot be used, and what is to be said of it."""
    path = folder / f"{kind}.safetensors"
    if kind == "missing":
        return path, "no such file, and no shipped weights of that name"
    if kind == "unknown":
        return "huge", "no shipped weights of that name"
    if kind == "pickled":
        torch.save({"w": torch.zeros(2)}, path.with_suffix(".pth"))
        return path.with_suffix(".pth"), "not a safetensors file.*are not loaded"
    if kind == "cut":
        path.write_bytes(net.read_bytes()[:5000])
        return path, "not a safetensors file"
    if kind == "foreign":
        save_file({"w": torch.zeros(2)}, path)
        return path, "expected format 'syncdisc-discriminator-1', got None"
    if kind == "other sizes":
        arch = json.dumps({"face_width": 16, "audio_width": 8, "embed_dim": 32})
        return change_metadata(net, path, architecture=arch), "other sizes"
    assert kind == "newer"
    spec = json.dumps(json.loads(ClipSpec().to_json()) | {"lens": "anamorphic"})
    return change_metadata(net, path, spec=spec), "newer.safetensors"


@pytest.mark.parametrize("verb", ["evaluate", "filter", "score"])
@pytest.mark.parametrize(
    "kind", ["missing", "unknown", "pickled", "cut", "foreign", "other sizes", "newer"]
)
def test_wrong_weights(
    run: Run, net: Path, tiny_store: ClipStore, tmp_path: Path, verb: str, kind: str
) -> None:
    ref, message = bad_weights(kind, net, tmp_path)
    argv = {
        "evaluate": ["--data", tiny_store.root],
        "filter": ["--data", tiny_store.root, "--out", tmp_path / "out"],
        "score": ["some.mp4", "--detector", "none"],
    }[verb]
    if verb == "evaluate" and kind in ("pickled", "cut", "foreign"):
        message = "an unknown net|cannot be read|damaged"  # it reads other people's experts too
    check_refused(run(verb, *argv, "--weights", ref), verb, message)


@pytest.mark.parametrize(
    "spec",
    [ClipSpec(face_px=64), ClipSpec(mel=MelSpec(pad_mode="reflect"))],
    ids=["size", "mel"],
)
@pytest.mark.parametrize("verb", ["evaluate", "filter"])
def test_weights_of_another_spec(
    run: Run, tiny_store: ClipStore, tmp_path: Path, verb: str, spec: ClipSpec
) -> None:
    other = weights.save(Discriminator(spec, Architecture(8, 8, 32)), tmp_path / "o.safetensors")
    out = ["--out", tmp_path / "out"] if verb == "filter" else []
    result = run(verb, "--data", tiny_store.root, "--weights", other, *out)
    if spec.face_px == 64:
        assert result[0] == 0  # the crops are resized
    else:
        check_refused(result, verb, "another frame rate, crop or mel")
        assert not (tmp_path / "out").exists()


def test_judging_a_store_in_another_size(run: Run, tiny_store: ClipStore, tmp_path: Path) -> None:
    other = weights.save(
        Discriminator(ClipSpec(face_px=64), Architecture(8, 8, 32)), tmp_path / "o.safetensors"
    )
    assert run("store", "judge", tiny_store.root, "--weights", other)[0] == 0
    assert len((tiny_store.root / "judged.jsonl").read_text().splitlines()) == len(tiny_store)


def test_evaluate_wants_one_source(run: Run, net: Path, tiny_store: ClipStore) -> None:
    one_of = "either --data STORE or --videos DIR"
    check_refused(run("evaluate", "--weights", net), "evaluate", one_of)
    both = ["--data", tiny_store.root, "--videos", "somewhere"]
    check_refused(run("evaluate", "--weights", net, *both), "evaluate", one_of)
    split = ["--videos", "somewhere", "--part", "heldout"]
    check_refused(run("evaluate", "--weights", net, *split), "evaluate", "--part heldout: .*--data")
    judged = ["--videos", "somewhere", "--choose.speaking", "yes"]
    check_refused(run("evaluate", "--weights", net, *judged), "evaluate", "speaking needs .*--data")


def test_evaluate_knows_two_parts(run: Run, net: Path, tiny_store: ClipStore) -> None:
    argv = ["evaluate", "--weights", net, "--data", tiny_store.root, "--part"]
    check_refused(run(*argv, "heldout"), "evaluate", "no split yet")
    from syncdisc_plugin.data.split import split_store

    split_store(tiny_store, share=0)
    check_refused(run(*argv, "heldout"), "evaluate", "nothing is held out")
    split_store(tiny_store)
    assert run(*argv, "heldout")[0] == 0
    status, out, err = run(*argv, "heldut")  # not quietly the held-out part, nor all
    assert (status, out) == (2, "") and "heldut" in err


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["prepare", "x", "--out", "y"], "The same command goes on."),
        (["train"], "The same command with --resume goes on."),
        (["store", "merge"], "The same command goes on."),
        (["store", "judge"], "stopped.\n"),
        (["evaluate"], "stopped.\n"),
    ],
)
def test_ctrl_c_says_what_is_kept(
    argv: list[str], words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(args: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("syncdisc_plugin.cli._command", lambda verb: stopped)
    assert main(argv) == 130
    assert capsys.readouterr().err.endswith(words if words.endswith("\n") else f"{words}\n")


def test_sigterm_stops_as_ctrl_c_does(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from syncdisc_plugin.atomic import replacing

    def long_command(args: object) -> int:
        with replacing(tmp_path / "out.mp4") as temp:
            temp.write_text("half")
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        return 0

    monkeypatch.setattr("syncdisc_plugin.cli._command", lambda verb: long_command)
    before = signal.getsignal(signal.SIGTERM)
    assert main(["prepare", "x", "--out", "y"]) == 130
    assert capsys.readouterr().err.endswith("stopped. The same command goes on.\n")
    assert not list(tmp_path.iterdir())
    assert signal.getsignal(signal.SIGTERM) is before


def test_debug_shows_where_an_error_came_from(tmp_path: Path) -> None:
    from syncdisc_plugin.errors import MediaError

    with pytest.raises(MediaError):
        main(["prepare", str(tmp_path / "gone"), "--out", str(tmp_path / "new"), "--debug"])


def test_report_of_a_folder_that_is_no_run(run: Run, tmp_path: Path) -> None:
    status, _, err = run("report", tmp_path / "gone")
    assert status == 2 and err.count("\n") == 1 and "gone" in err
    assert not (tmp_path / "gone").exists()


# --- the verbs in a row


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three invented speakers with a clip of 2 s each, and a file that is no video."""
    root = tmp_path_factory.mktemp("footage")
    write_footage(root, speakers=3, clips_per_speaker=1, seconds=2, out_of_sync=0)
    (root / "speaker_1" / "broken.mp4").write_bytes(bytes(range(256)) * 40)
    return root


def strict(text: str) -> object:
    """JSON as every reader takes it: NaN and Infinity are no JSON."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_prepare_score_filter_evaluate(run: Run, footage: Path, net: Path, tmp_path: Path) -> None:
    data = tmp_path / "store"
    prepare = ["prepare", footage, "--out", data, "--detector", "lbp", "--workers", "1"]
    status, out, err = run(*prepare)
    assert status == 0
    assert re.match(r"prepared 3 clips, 0\.1 minutes, from 4 videos in .*; 1 refused -> ", out)
    assert err.count("refused: ") == 1 and "broken.mp4" in err and "Traceback" not in err
    status, out, _ = run(*prepare)
    assert status == 0 and "prepared 0 clips" in out and "from 0 videos" in out
    assert "\n4 videos were finished before: nothing to do\n" in out
    assert "(or --speakers): heldout_1, heldout_2, speaker_1\n" in out

    videos = sorted(footage.glob("*/clip_1.mp4"))
    status, out, err = run("score", *videos, "--weights", net, "--detector", "lbp", "--json")
    assert (status, err) == (0, "")
    scores = [strict(line) for line in out.splitlines()]
    assert [s["path"] for s in scores] == [str(v) for v in videos]
    for score in scores:
        (track,) = score["tracks"]
        assert 1.8 <= track["seconds"] <= 2.0
        assert -15 <= track["offset_frames"] <= 15 and track["confidence"] >= 0
        assert len(track["probability_over_time"]) == round(track["seconds"] * 25) - 4
        assert len(track["similarity_over_offset"]) == 31
        # By value: rounded as printed, two offsets of a net that learnt nothing may be equal.
        curve = track["similarity_over_offset"]
        assert curve[track["offset_frames"] + 15] == max(curve)
        assert 0 <= track["probability"] <= 1
        x1, y1, x2, y2 = track["box"]
        assert 0 <= x1 < x2 <= 176 and 0 <= y1 < y2 <= 176

    status, out, err = run("filter", "--data", data, "--weights", net, "--out", tmp_path / "f")
    rows = [json.loads(line) for line in (tmp_path / "f" / "filter.jsonl").read_text().splitlines()]
    verdicts = [row["verdict"] for row in rows if "verdict" in row]
    assert status == 0 and len(verdicts) == 3
    counts = [f"{verdicts.count(v)} {v}" for v in ("kept", "shifted", "dropped")]
    assert out.startswith(", ".join(counts) + " -> ")

    figures_at = tmp_path / "figures.json"
    status, out, err = run("evaluate", "--data", data, "--weights", net, "--json", figures_at)
    assert status == 0
    figures = json.loads(figures_at.read_text())
    assert set(figures["pm_accuracy"]) == {"5", "7", "9", "11", "13", "15", "25"}
    assert {"1", "2", "3", "5", "10"} <= set(figures["pair_accuracy_by_distance"])
    shares = [*figures["pm_accuracy"].values(), figures["pair_accuracy"], figures["auc"]]
    shares += [figures["eer"], figures["ece"]]
    assert all(0 <= share <= 1 for share in shares)
    assert 0 <= figures["offset_mae_frames"] <= 15
    store = ClipStore(data)
    assert figures["n_clips"] == 3
    assert figures["n_windows"] == sum(clip.n_frames - 4 for clip in store.clips)
    # A net that learnt nothing tells nothing.
    assert 0.2 < figures["pair_accuracy"] < 0.8
    assert out.startswith("weights") and "\npair_accuracy  " in out


def test_figures_of_a_single_clip_are_json(
    run: Run, net: Path, tiny_store: ClipStore, tmp_path: Path
) -> None:
    """One clip has no other speaker to be told from: null or left out, but not NaN."""
    manifest = tiny_store.root / "manifest.jsonl"
    manifest.write_text(manifest.read_text().splitlines()[0] + "\n")
    argv = ["evaluate", "--data", tiny_store.root, "--weights", net, "--json", tmp_path / "f.json"]
    assert run(*argv)[0] == 0
    figures = strict((tmp_path / "f.json").read_text())
    assert figures["n_clips"] == 1
    assert figures["pair_accuracy_by_distance"].get("other_speaker") is None


def test_score_goes_on_after_a_bad_video(
    run: Run, footage: Path, net: Path, tmp_path: Path
) -> None:
    bad, good = footage / "speaker_1" / "broken.mp4", footage / "heldout_1" / "clip_1.mp4"
    argv = ["score", bad, good, "--weights", net, "--detector", "lbp"]
    status, out, err = run(*argv)
    assert status == 2
    assert err.count("\n") == 1 and "broken.mp4" in err
    assert re.match(rf"{re.escape(str(good))}  face 0 at 0\.\d\d s for [12]\.\d\d s: ", out)
    status, out, err = run(*argv, "--json")
    first, second = (strict(line) for line in out.splitlines())
    assert status == 2 and err == ""
    assert "broken.mp4" in first["error"] and len(second["tracks"]) == 1


def test_score_of_a_clip_shorter_than_a_window(run: Run, net: Path, tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), np.uint8)
    sound = np.random.default_rng(1).uniform(-0.3, 0.3, 2560).astype(np.float32)
    write_video(tmp_path / "short.mp4", frames, audio=sound)
    argv = ["score", tmp_path / "short.mp4", "--weights", net, "--detector", "none"]
    check_refused(run(*argv), "score", r"short\.mp4: ")
    check_refused(run(*argv, "--track.min_frames", "2"), "score", r"short\.mp4: ")


def test_a_host_layout_of_a_store(
    run: Run, net: Path, tiny_store: ClipStore, tmp_path: Path
) -> None:
    """Without videos, from a store that is there; the verdicts of `filter` are followed."""
    assert (
        run("filter", "--data", tiny_store.root, "--weights", net, "--out", tmp_path / "f")[0] == 0
    )
    rows = [json.loads(r) for r in (tmp_path / "f" / "filter.jsonl").read_text().splitlines()]
    rows[0] |= {"verdict": "dropped"}
    rows[1:] = [r | {"verdict": "kept", "lag_frames": 0.0} for r in rows[1:]]
    (tmp_path / "f" / "filter.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    argv = ["prepare", "--out", tiny_store.root, "--layout", "wav2lip"]
    status, out, err = run(*argv, "--layout_run", tmp_path / "f", "--layout_out", tmp_path / "host")
    assert status == 0, err
    assert f"wav2lip: {len(rows) - 1} clips" in out and "1 left out" in out
    assert len(list((tmp_path / "host").rglob("audio.wav"))) == len(rows) - 1
    # A run has the second discriminator's verdicts, too, and those are sharper.
    rows[1] |= {"verdict": "dropped", "reason": "test"}
    again = "".join(json.dumps(r) + "\n" for r in rows)
    (tmp_path / "f" / "filter-again.jsonl").write_text(again)
    _, out, _ = run(*argv, "--layout_run", tmp_path / "f", "--layout_out", tmp_path / "again")
    assert f"wav2lip: {len(rows) - 2} clips" in out and "filter-again.jsonl" in out
    check_refused(
        run(*argv, "--layout_run", tmp_path), "prepare", r"--layout_run .*holds no filter\.jsonl"
    )
    check_refused(run(*argv[:-1], "nohost"), "prepare", "layout: .*nohost")
    check_refused(run("prepare", "--out", tiny_store.root), "prepare", "give videos, or --layout")


def test_a_resumed_run_says_which_settings_of_now_it_leaves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begun = TrainSettings(minutes=45, heldout_speakers=("ann",), device="cuda")
    (tmp_path / "settings.json").write_text(json.dumps(dataclasses.asdict(begun)))
    now = TrainSettings(minutes=60, seed=3, heldout_speakers=("ann",))
    say_what_stays(tmp_path, now, {"minutes", "seed", "heldout_speakers"})
    assert capsys.readouterr().out.endswith(": --minutes, --seed of now: not used\n")
    say_what_stays(tmp_path, TrainSettings(), {"minutes"})  # the default, and not what is stored
    assert capsys.readouterr().out.endswith(": --minutes of now: not used\n")
    say_what_stays(tmp_path, TrainSettings(), set())  # what is not given asks for nothing
    say_what_stays(tmp_path, TrainSettings(device="cpu"), {"device"})
    say_what_stays(tmp_path / "new", TrainSettings(minutes=60), {"minutes"})
    assert capsys.readouterr().out == ""


def test_what_is_given_is_told_from_defaults(tmp_path: Path) -> None:
    parser = new_parser("train")
    parser.add_argument("--config", action="config")
    parser.add_class_arguments(TrainSettings)
    (tmp_path / "c.yaml").write_text("seed: 3\nstage2:\n  learning_rate: 0.01\n")
    args = ["--minutes", "120", "--config", str(tmp_path / "c.yaml")]
    assert typed(parser, args) == {"minutes", "seed", "stage2", "config"}


def test_a_switch_needs_no_value() -> None:
    parser = new_parser("prepare")
    parser.add_argument("paths", nargs="*")
    add_prepare(parser)
    for args in (
        ["--retry", "a"],
        ["a", "--retry"],
        ["a", "--retry", "true"],
        ["a", "--retry=true"],
    ):
        parsed = parser.parse_args(args)
        assert parsed.retry is True and parsed.paths == ["a"]
    assert parser.parse_args(["--retry", "false", "a"]).retry is False


@pytest.mark.parametrize("verb", ["evaluate", "doctor", "filter"])
def test_a_file_that_cannot_be_written_is_said_before_the_work(
    run: Run, tmp_path: Path, verb: str
) -> None:
    gone = tmp_path / "gone"  # looked at only later
    (tmp_path / "file").write_text("")
    flag = "--out" if verb == "filter" else "--json"
    beyond = run(verb, "--data", gone, flag, tmp_path / "file" / "x")
    check_refused(beyond, verb, f"{flag} .*: .*file is a file\\. Give a file in a folder")
    if verb != "filter":
        folder = run(verb, "--data", gone, flag, tmp_path)
        check_refused(folder, verb, f"{flag} .*: is a folder. Give the name of a file")


def test_a_layout_is_checked_before_a_night_is_spent(run: Run, tmp_path: Path) -> None:
    """Whatever the videos are: they are not looked at."""
    argv = ["prepare", tmp_path / "gone", "--out", tmp_path / "store"]
    check_refused(run(*argv, "--layout", "wav2lip-288"), "prepare", "layout: .*wav2lip-288")
    elsewhere = ["--layout", "wav2lip", "--layout_run", tmp_path]
    check_refused(run(*argv, *elsewhere), "prepare", "--layout_run")
    check_refused(run(*argv, "--layout_out", tmp_path), "prepare", "expected --layout")
    margin = run(*argv, "--spec.margin=-0.1")
    check_refused(margin, "prepare", "margin: expected a ratio of the box, 0 to 1, got -0.1")
    assert not (tmp_path / "store").exists()


def test_devices_and_precisions_that_there_are_not(
    run: Run, net: Path, tiny_store: ClipStore
) -> None:
    data = ["--data", tiny_store.root]
    out = run("evaluate", *data, "--weights", net, "--precision", "fp16")
    check_refused(out, "evaluate", "--precision: expected auto, bf16 or fp32, got 'fp16'")
    out = run("doctor", *data, "--device", "gpu")
    check_refused(out, "doctor", "--device: expected auto, cpu or cuda .*got 'gpu'")


def test_export_writes_what_it_checked(run: Run, net: Path, tmp_path: Path) -> None:
    status, out, err = run("export", "--weights", net, "--out", tmp_path / "net.pt2")
    assert status == 0, err
    assert (tmp_path / "net.pt2").exists() and "net.pt2" in out
    check_refused(
        run("export", "--weights", net, "--out", tmp_path / "net.bin"), "export", r"\.bin"
    )


def test_evaluate_of_bad_videos_only_says_why(run: Run, net: Path, tmp_path: Path) -> None:
    write_video(tmp_path / "mute.mp4", (np.full((64, 64, 3), i, np.uint8) for i in range(40)))
    video = f"file://{tmp_path}/mute.mp4"
    result = run("evaluate", "--videos", video, "--weights", net, "--detector", "none")
    check_refused(result, "evaluate", "no usable clip in them.*mute.mp4: no audio stream")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--steps", "5"], "--steps: expected a number of at least 10, got 5"),
        (["--ema", "1.5"], "--ema: expected a number of at least 0 and below 1, got 1.5"),
        (["--gap.preset", "3"], "--gap.preset: expected a number above 0 and of at most 2"),
        (["--reference", "bsae"], "bsae"),
        (["--init_from", "bsae"], "bsae"),
        (
            ["--init_from", "base", "--spec.crop", "aligned"],
            "--init_from base: was trained on another frame rate, crop or mel than --spec",
        ),
        (
            ["--init_from", "base", "--architecture.face_width", "16"],
            "--architecture: expected that of --init_from base, .*width=32.*got.*width=16",
        ),
        (["--choose.speaking", "yes"], "speaking needs what `syncdisc store judge`"),
    ],
)
def test_run_refuses_settings_before_it_prepares(
    run: Run, tmp_path: Path, flags: list[str], message: str
) -> None:
    (tmp_path / "a.mp4").write_text("x")
    argv = ["--videos", tmp_path / "a.mp4", "--out", tmp_path / "new", "--detector", "none"]
    check_refused(run("run", *argv, *flags), "run", message)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("[1001, 1002]", ("1001", "1002")),
        ("[001]", ("001",)),
        ('["anna b", "no"]', ("anna b", "no")),
        ("no", ("no",)),
        ("anna, 1e3", ("anna", "1e3")),
        ("[]", ()),
    ],
)
@pytest.mark.parametrize("joined", [False, True])
def test_names_are_read_as_they_are_typed(typed: str, read: tuple[str, ...], joined: bool) -> None:
    parser = new_parser("train")
    parser.add_class_arguments(TrainSettings)
    argv: list[str] = []
    for flag in ("--heldout_speakers", "--choose.languages"):
        argv += [f"{flag}={typed}"] if joined else [flag, typed]
    parsed = parser.parse_args(argv)
    assert tuple(parsed.heldout_speakers) == tuple(parsed.choose.languages) == read


def test_prepare_of_bad_videos_only(run: Run, tmp_path: Path) -> None:
    write_video(tmp_path / "mute.mp4", (np.full((64, 64, 3), i, np.uint8) for i in range(40)))
    argv = ["prepare", tmp_path / "mute.mp4", "--out", tmp_path / "store", "--detector", "none"]
    status, _, err = run(*argv)
    assert status == 2 and "Traceback" not in err
    assert "mute.mp4: no audio stream" in err
    assert "no usable clip (1 inputs refused" in err


def test_a_store_that_is_not_there_does_not_empty_a_page(run: Run, tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text("{}")
    (tmp_path / "report.html").write_text("the page")
    result = run("report", tmp_path, "--data", tmp_path / "stroe")
    check_refused(result, "report", "stroe")
    assert (tmp_path / "report.html").read_text() == "the page"


def test_a_run_that_goes_on_says_what_it_leaves_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begun = TrainSettings(minutes=28.5)
    (tmp_path / "settings.json").write_text(json.dumps(dataclasses.asdict(begun)))
    monkeypatch.setattr("syncdisc_plugin.data.store.ClipStore", lambda _: None)

    def nothing(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("syncdisc_plugin.train.train", nothing)
    argv = ["run", "--videos", "other", "--out", str(tmp_path), "--resume", "--minutes", "30"]
    main([*argv, "--seed", "7"])
    out = capsys.readouterr().out
    assert ": --seed of now: not used" in out and "--videos of now are not looked at" in out
