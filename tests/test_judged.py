"""Who speaks: of several faces in sight at once, the one that the sound fits."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from embedded import units

from syncdisc_plugin.cli import main
from syncdisc_plugin.data.embed import Embedded
from syncdisc_plugin.data.judged import Judged, judge_clips, judge_video, write_judged
from syncdisc_plugin.data.manifest import Clip
from syncdisc_plugin.data.store import ClipStore, read_judged
from syncdisc_plugin.nn import Discriminator

N = 300
SOUND = units(N + 60, seed=1)


def face(
    number: int,
    *,
    speaks: tuple[int, int] | None = None,
    early: int = 0,
    start: int = 0,
    n: int = N - 60,
    noise: float = 0.8,
) -> Embedded:
    """A track that moves with the video's sound in the frames `speaks` of the video."""
    a = SOUND[start + 30 + early : start + 30 + early + n]
    v = units(n, seed=100 + number)
    if speaks:
        first, end = (min(max(frame - start, 0), n) for frame in speaks)
        moves = SOUND[start + 30 : start + 30 + n]
        v[first:end] = (moves + noise * v)[first:end]
    clip = Clip(f"k-0/{number}", "s", "talk.mp4", start / 25, n + 4, 0, 96.0, -20.0)
    return Embedded(clip, torch.nn.functional.normalize(v, dim=1), a, 5)


def judged(*faces: Embedded) -> list[Judged]:
    return judge_video(faces, 25, "base")


ALWAYS = (0, 10_000)


def test_of_two_faces_the_one_that_moves_with_the_sound_speaks() -> None:
    for early in (0, 3, -4):
        silent, speaker = judged(face(0, early=early), face(1, speaks=ALWAYS, early=early))
        assert (silent.speaking, speaker.speaking) == (False, True)
        assert speaker.offset_frames == early and speaker.beside == silent.beside == 1
        assert "k-0/1 speaks" in silent.reason and "clearest of 2" in speaker.reason


def test_who_takes_turns_speaks_and_who_listens_does_not() -> None:
    half = (N - 60) // 2
    faces = face(0, speaks=(0, half)), face(1, speaks=(half, 999)), face(2)
    assert [one.speaking for one in judged(*faces)] == [True, True, False]


def test_a_voice_that_belongs_to_no_face_leaves_all_of_them_open() -> None:
    for one in judged(face(0), face(1)):
        assert one.speaking is None and "none of 2 faces is clear" in one.reason


def test_a_face_alone_is_compared_with_no_other() -> None:
    first, second = judged(face(0, speaks=ALWAYS, n=100), face(1, start=120, n=100))
    assert (first.speaking, first.beside) == (True, 0)
    assert (second.speaking, second.beside) == (None, 0) and "too little to tell" in second.reason


def test_tracks_that_overlap_in_part_are_compared_over_that_part() -> None:
    speaker, silent = judged(face(0, speaks=ALWAYS, n=150), face(1, start=60, n=150))
    assert (speaker.speaking, silent.speaking) == (True, False)


def test_a_peak_at_another_offset_is_not_the_speaker() -> None:
    echo = face(0, speaks=ALWAYS, noise=2.0)
    late = replace(echo, v=torch.roll(echo.v, 9, 0))
    other, speaker = judged(late, face(1, speaks=ALWAYS))
    assert (other.speaking, speaker.speaking) == (False, True)


def test_a_store_is_judged_without_being_changed(
    tiny_net: Discriminator, tiny_store: ClipStore, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (tiny_store.root / "manifest.jsonl").read_bytes()
    rows = judge_clips(tiny_net, tiny_store, "tiny")
    path = write_judged(tiny_store, rows)
    assert (tiny_store.root / "manifest.jsonl").read_bytes() == before
    assert list(read_judged(tiny_store.root)) == [clip.id for clip in tiny_store.clips]
    first = json.loads(path.read_text().splitlines()[0])
    assert set(first) == set(Judged.__dataclass_fields__) and first["weights"] == "tiny"
    assert [one.row() for one in judge_clips(tiny_net, tiny_store, "tiny")] == [
        one.row() for one in rows
    ]
    assert main(["store", "judge", str(tiny_store.root), "--weights", "nobody"]) == 2
    assert "nobody" in capsys.readouterr().err
    assert read_judged(tiny_store.root / "gone") == {}


@pytest.mark.real
@pytest.mark.slow
def test_the_speaking_one_of_two_real_faces(
    clips_dir: Path, models_dir: Path, tmp_path: Path
) -> None:
    """Two clips side by side with the sound of one of them."""
    from syncdisc_plugin import weights
    from syncdisc_plugin.data.prepare import PrepareSettings, prepare
    from syncdisc_plugin.media import decode, write_video

    picked = [clips_dir / "presenters" / name for name in ("amy/Amy.mp4", "brad/Brad.mp4")]
    if not all(path.exists() for path in picked):
        pytest.skip("other presenters than this test was written with")
    n, videos = 200, [decode(path) for path in picked]
    for heard in (0, 1):  # the silent one is in the shade, to know its clip by

        def halves(heard: int = heard) -> Iterator[np.ndarray]:
            for pair in itertools.islice(zip(*(v.frames() for v in videos), strict=False), n):
                left, right = (
                    (cv2.resize(image, (320, 240)) * (1.0 if i == heard else 0.5)).astype(np.uint8)
                    for i, image in enumerate(pair)
                )
                yield np.hstack([left, right])

        write_video(tmp_path / f"{heard}.mp4", halves(), audio=videos[heard].audio[: n * 640])
    net = weights.load("base")
    prepare([tmp_path], tmp_path / "s", net.spec, PrepareSettings(models=models_dir, workers=1))
    store = ClipStore(tmp_path / "s")
    rows = {one.clip_id: one for one in judge_clips(net, store, "base")}
    for heard in (0, 1):
        pair = [clip for clip in store.clips if clip.source.endswith(f"{heard}.mp4")]
        assert len(pair) == 2 and all(rows[clip.id].beside == 1 for clip in pair)
        silent, speaker = sorted(pair, key=lambda clip: float(store.frames(clip).mean()))
        assert rows[speaker.id].speaking is True
        assert rows[silent.id].speaking is not True
