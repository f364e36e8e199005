from __future__ import annotations

import dataclasses
import json
import weakref
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch

from syncdisc_plugin.data.embed import Embedded
from syncdisc_plugin.data.filter import (
    FilterResult,
    FilterSettings,
    judge_clips,
    second_dataset,
)
from syncdisc_plugin.data.manifest import Clip
from syncdisc_plugin.data.sampling import Item

DIM = 16


def units(rng: np.random.Generator, n: int) -> torch.Tensor:
    x = torch.from_numpy(rng.standard_normal((n, DIM))).float()
    return torch.nn.functional.normalize(x, dim=1)


def clip(name: str, v: torch.Tensor, a: torch.Tensor, speaker: str | None = None) -> Embedded:
    about = Clip(f"{name}/0", speaker or name, f"{name}.mp4", 0.0, len(v) + 4, 0, 96.0, -20.0)
    return Embedded(about, v, a, 5)


def planted(
    name: str, k: int | None, seed: int, n: int = 60, noise: float = 0.8, **more: str
) -> Embedded:
    """A clip whose audio is k frames early (None: audio of something else)."""
    rng = np.random.default_rng(seed)
    thing = units(rng, n + 40)  # what happens at each moment, the clip being in the middle
    v = thing[20 : 20 + n]
    a = units(rng, n) if k is None else thing[20 + k : 20 + k + n]
    noises = [noise * units(rng, n) for _ in range(2)]
    v, a = (
        torch.nn.functional.normalize(x + e, dim=1) for x, e in zip((v, a), noises, strict=True)
    )
    return clip(name, v, a, **more)


def verdicts(clips: Sequence[Embedded], **settings: float) -> dict[str, tuple[str, int]]:
    result = judge_clips(clips, FilterSettings(**settings))  # type: ignore[arg-type]
    return {v.clip_id[:-2]: (v.verdict, v.offset_frames) for v in result.verdicts}


def second(result: FilterResult, clips: Sequence[Embedded]) -> list[Item]:
    return second_dataset([c.clip for c in clips], (v.row() for v in result.verdicts))


OFFSETS = {f"{k:+d}": k for k in (-15, -13, -12, -7, -2, -1, 0, 1, 2, 3, 12, 14, 15)}


@pytest.fixture(scope="module")
def mixed() -> list[Embedded]:
    """Clips with known lags, clips with foreign audio, and some in sync."""
    clips = [planted(name, k, 100 + i) for i, (name, k) in enumerate(OFFSETS.items())]
    clips += [planted(f"foreign{i}", None, 200 + i) for i in range(8)]
    return clips + [planted(f"good{i}", 0, 300 + i) for i in range(8)]


def test_every_lag_is_seen_with_its_sign_and_gets_its_verdict(mixed: list[Embedded]) -> None:
    got = verdicts(mixed)
    for name, k in OFFSETS.items():
        size = abs(k)
        expected = "kept" if size <= 1 else "shifted" if size <= 12 else "dropped"
        assert got[name] == (expected, k), name
    assert all(got[f"good{i}"] == ("kept", 0) for i in range(8))
    assert sum(got[f"foreign{i}"][0] == "dropped" for i in range(8)) >= 7


def test_the_second_dataset_undoes_the_lags(mixed: list[Embedded]) -> None:
    result = judge_clips(mixed)
    items = {item.clip.id[:-2]: item.lag_frames for item in second(result, mixed)}
    for name in ("+3", "-7", "+12", "+1", "-1", "good0"):  # those that are kept are aligned too
        assert items[name] == pytest.approx(OFFSETS.get(name, 0), abs=0.4), name
    assert "-13" not in items and "+15" not in items
    assert len(items) == result.count("kept") + result.count("shifted")
    assert sum(map(result.count, ("kept", "shifted", "dropped"))) == len(mixed)


def test_limits_are_settings(mixed: list[Embedded]) -> None:
    got = verdicts(mixed, tolerance_frames=3, max_shift_frames=7)
    assert got["+3"][0] == got["-2"][0] == "kept"
    assert got["-7"][0] == "shifted"
    assert got["+12"][0] == got["-12"][0] == "dropped"


def test_impostors_pass_at_about_the_rate_that_is_allowed() -> None:
    clips = [planted(f"f{i}", None, i, n=40) for i in range(400)]
    result = judge_clips(clips, FilterSettings(false_accept=0.02))
    assert len(result.impostor_strengths) == 400 * 8
    for verdict in ("kept", "shifted"):  # 8 are allowed; 4 times their spread of 2.8
        assert result.count(verdict) <= 8 + 12
    assert result.count("kept") + result.count("shifted") >= 4  # and it is not simply strict
    strict = judge_clips(clips, FilterSettings(false_accept=0.0))
    assert strict.count("kept") + strict.count("shifted") <= 4
    assert strict.keep_threshold > result.keep_threshold
    assert strict.shift_threshold > result.shift_threshold


def test_a_large_dataset_is_not_held_in_memory() -> None:
    """Embeddings of 300 hours are 50 GB: those of a draw are kept, and give the same thresholds."""
    alive: list[weakref.ref[torch.Tensor]] = []
    most = 0

    def coming() -> Iterator[Embedded]:
        nonlocal most
        for i in range(300):
            made = planted(f"c{i}", (0, 5, None)[i % 3], i, n=40)
            alive.append(weakref.ref(made.v))
            yield made
            del made
            most = max(most, sum(ref() is not None for ref in alive))

    few = judge_clips(coming(), FilterSettings(impostor_clips=100))
    assert most <= 101 and len(few.impostor_strengths) == 800
    every = judge_clips([planted(f"c{i}", (0, 5, None)[i % 3], i, n=40) for i in range(300)])
    assert few.keep_threshold == pytest.approx(every.keep_threshold, rel=0.15)
    same = sum(a.verdict == b.verdict for a, b in zip(few.verdicts, every.verdicts, strict=True))
    assert same >= 290


def test_a_dirty_dataset_is_cleaned() -> None:
    """A third of the clips foreign, a third shifted: what is left is right."""
    rng = np.random.default_rng(5)
    lags = {f"c{i}": (0, int(rng.integers(2, 11)), None)[i % 3] for i in range(90)}
    clips = [planted(name, k, i, noise=1.0) for i, (name, k) in enumerate(lags.items())]
    items = {i.clip.id[:-2]: round(i.lag_frames) for i in second(judge_clips(clips), clips)}
    assert sum(lags[name] is None for name in items) <= 4
    assert all(lags[name] in (None, lag) for name, lag in items.items())
    assert len(items) >= 55


def test_foreign_sound_does_not_pass_beside_clear_clips() -> None:
    """A net lends some similarity to the pairs that it learnt; that is not sync."""
    clips = [planted(f"good{i}", 0, i, noise=0.3) for i in range(20)]
    rng = np.random.default_rng(9)
    v = units(rng, 400)
    faint = torch.nn.functional.normalize(units(rng, 400) + 0.15 * v, dim=1)
    got = verdicts([*clips, clip("faint", v, faint)])
    assert got["faint"][0] == "dropped"
    assert all(got[f"good{i}"] == ("kept", 0) for i in range(20))
    assert verdicts([*clips, clip("faint", v, faint)], overlearnt=0.0)["faint"] == ("kept", 0)


def test_impostors_are_of_other_speakers_where_there_are_some() -> None:
    """Clips of one speaker that say the same must not count as impostors of each other."""
    clips = [planted(f"a{i}", 0, 1, speaker="a") for i in range(6)]
    clips += [planted(f"b{i}", 0, 2, speaker="b") for i in range(6)]
    assert set(verdicts(clips).values()) == {("kept", 0)}


def test_one_speaker_alone_is_judged_by_his_other_clips() -> None:
    clips = [planted(f"c{i}", (0, 5)[i % 2], i, speaker="one") for i in range(12)]
    clips.append(planted("foreign", None, 99, speaker="one"))
    result = judge_clips(clips)
    assert result.impostor_strengths
    got = verdicts(clips)
    assert all(got[f"c{i}"] == (("kept", 0), ("shifted", 5))[i % 2] for i in range(12))
    assert got["foreign"][0] == "dropped"


@pytest.mark.parametrize(("k", "verdict"), [(0, "kept"), (4, "shifted"), (-15, "dropped")])
def test_a_single_clip_is_judged_by_its_peak(k: int, verdict: str) -> None:
    (clip_,) = clips = [planted("only", k, 0)]
    result = judge_clips(clips)
    assert result.impostor_strengths == []
    assert (result.verdicts[0].verdict, result.verdicts[0].offset_frames) == (verdict, k)
    assert [round(i.lag_frames) for i in second(result, [clip_])] == ([] if k == -15 else [k])


def test_clips_of_one_window_or_two(mixed: list[Embedded]) -> None:
    short = [planted(f"short{n}", 0, n, n=n) for n in (1, 2)]
    got = verdicts([*mixed, *short])
    assert got["short1"] == ("dropped", 0)  # a single window has no curve to stand out from
    assert got["good0"] == ("kept", 0)


def test_long_clips_need_less_confidence_than_short_ones() -> None:
    result = judge_clips([planted(f"n{n}", 0, n, n=n) for n in (40, 160) for _ in range(1)])
    short, long = result.verdicts
    for v, n in ((short, 40), (long, 160)):
        assert v.strength == pytest.approx(v.confidence * np.sqrt(n), abs=2e-3)


def test_only_windows_that_have_a_sound_at_the_offset_count() -> None:
    (late,) = judge_clips([planted("late", -9, 3, n=40)]).verdicts
    assert late.offset_frames == -9
    assert late.strength == pytest.approx(late.confidence * np.sqrt(40 - 9), abs=2e-3)


def test_the_same_seed_gives_the_same_verdicts(mixed: list[Embedded]) -> None:
    one, two, other = judge_clips(mixed), judge_clips(mixed), judge_clips(mixed, seed=1)
    assert one == two
    assert one.impostor_strengths != other.impostor_strengths


def test_every_clip_gets_a_row_with_a_reason(mixed: list[Embedded]) -> None:
    result = judge_clips(mixed)
    rows = [json.loads(json.dumps(v.row())) for v in result.verdicts]
    assert [row["clip_id"] for row in rows] == [c.clip.id for c in mixed]
    by_id = {row["clip_id"][:-2]: row for row in rows}
    assert by_id["good0"]["source"] == "good0.mp4"
    assert "early" in by_id["+3"]["reason"] and "late" in by_id["-7"]["reason"]
    assert "too near the end" in by_id["+15"]["reason"]
    assert all(row["reason"] for row in rows)


def test_settings_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        FilterSettings().impostors = 3  # type: ignore[misc]


def test_one_long_video_has_impostors_too() -> None:
    """A lecture of a single speaker, in pieces: sound from elsewhere in it is an impostor."""

    def piece(i: int, lag: int | None, start_s: float) -> Embedded:
        made = planted(f"c{i}", lag, 900 + i, noise=1.6)
        about = dataclasses.replace(
            made.clip, speaker="ann", source="talk.mp4", start_s=start_s, n_frames=60
        )
        return dataclasses.replace(made, clip=about)

    lags = [None if i % 3 == 0 else 0 for i in range(45)]
    clips = [piece(i, lag, 2.4 * i) for i, lag in enumerate(lags)]
    result = judge_clips(clips)
    assert len(result.impostor_strengths) == 45 * 8
    foreign = [v for v, lag in zip(result.verdicts, lags, strict=True) if lag is None]
    assert sum(v.verdict != "dropped" for v in foreign) <= 2
    # Faces that are in sight at the same time hear the same.
    together = judge_clips([piece(i, 0, 0.0) for i in range(5)])
    assert not together.impostor_strengths
