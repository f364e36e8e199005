"""A small talking-face generator, trained by a sync loss and nothing else that knows of lips."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from syncdisc_plugin.demo.portrait import Portrait, to_uint8
from syncdisc_plugin.demo.voice import FPS, Utterance, loudness
from syncdisc_plugin.mel import log_mel
from syncdisc_plugin.spec import ClipSpec
from syncdisc_plugin.timing import mel_start, n_windows

SyncFn = Callable[[Tensor, Tensor], Tensor]
_SPEC = ClipSpec()
_MIDDLE = _SPEC.window_frames // 2


class MouthGenerator(nn.Module):
    """Mel windows -> mouth parameters -> rendered faces, differentiable from end to end."""

    def __init__(self, portrait: Portrait, channels: int = 48) -> None:
        """Start with a mouth that hardly moves."""
        super().__init__()
        self.portrait = portrait
        self.listen = nn.Sequential(
            nn.Conv1d(_SPEC.mel.n_mels, channels, 3, padding=1),
            nn.SiLU(),
            nn.Conv1d(channels, channels, 3, padding=1),
            nn.SiLU(),
            nn.Conv1d(channels, channels, 3, padding=1),
            nn.SiLU(),
        )
        self.move = nn.Linear(channels * _SPEC.window_mels, _SPEC.window_frames * 2)
        nn.init.normal_(self.move.weight, std=1e-3)
        nn.init.zeros_(self.move.bias)

    def mouth(self, mel: Tensor) -> Tensor:
        """Mel windows (B, 1, M, L) -> (B, T, 2): opening in [0, 1], width in [-1, 1]."""
        heard = self.listen(mel[:, 0] / _SPEC.mel.max_abs)
        raw = self.move(heard.flatten(1)).unflatten(1, (_SPEC.window_frames, 2))
        # Starts a quarter open: where lips touch, the picture says little about opening them.
        return torch.stack([torch.sigmoid(raw[..., 0] - 1.1), torch.tanh(raw[..., 1])], dim=-1)

    def draw_faces(self, mouth: Tensor) -> Tensor:
        """Mouths (B, T, 2) -> face crops (B, C=3, T, face_px, face_px) in [0, 1]."""
        faces = self.portrait.render_face(mouth.flatten(0, 1), _SPEC.face_px)
        return faces.unflatten(0, mouth.shape[:2]).transpose(1, 2)

    def forward(self, mel: Tensor) -> Tensor:
        """Mel windows (B, 1, M, L) -> face crops (B, C=3, T, face_px, face_px) in [0, 1]."""
        return self.draw_faces(self.mouth(mel))


@dataclass(frozen=True)
class Row:
    """One measurement during training."""

    step: int
    """Updates done so far."""
    loss: float
    """The sync loss on held-out windows."""
    truth_correlation: float
    """Pearson's r of the generated opening and the one that made the sound; 0 if still."""
    loudness_correlation: float
    """Pearson's r of the generated opening and the loudness, held out; 0 if still."""


@dataclass(frozen=True)
class GeneratorReport:
    """What a sync loss taught a generator; the curves are those of the first held-out utterance."""

    rows: list[Row]
    """From step 0 to the last one."""
    truth: np.ndarray
    """(N,) the opening that made the sound, per window."""
    before: np.ndarray
    """(N,) generated opening before training."""
    after: np.ndarray
    """(N,) generated opening after training."""
    faces: np.ndarray
    """(2, K, face_px, face_px, 3) uint8: the same K moments before and after."""
    face_frames: list[int]
    """Which K frames the faces show."""


@dataclass(frozen=True)
class _Heard:
    """An utterance as mel windows, one per frame that has a whole window."""

    mels: Tensor
    loudness: np.ndarray

    @classmethod
    def of(cls, audio: np.ndarray) -> _Heard:
        mel = log_mel(torch.from_numpy(audio), _SPEC.mel)
        n_frames = len(audio) * _SPEC.fps // _SPEC.mel.sample_rate_hz
        starts = [mel_start(f, _SPEC) for f in range(n_windows(n_frames, mel.shape[-1], _SPEC))]
        windows = torch.stack([mel[None, :, at : at + _SPEC.window_mels] for at in starts])
        # A window's middle frame speaks for it: it hears sound on both sides.
        return cls(windows, loudness(audio, n_frames)[_MIDDLE : _MIDDLE + len(windows)])


def _opening(generator: MouthGenerator, mels: Tensor) -> np.ndarray:
    """The opening (N,) that each window's middle frame gets."""
    with torch.no_grad():
        return generator.mouth(mels)[:, _MIDDLE, 0].cpu().numpy().astype(np.float64)


def _agreement(opening: np.ndarray, other: np.ndarray) -> float:
    """Pearson's r; 0 for a mouth that moves less than anybody could see."""
    return float(np.corrcoef(opening, other)[0, 1]) if opening.std() > 1e-3 else 0.0


def train_generator(
    sync: SyncFn,
    portrait: Portrait,
    audio: Sequence[np.ndarray],
    heldout: Sequence[Utterance],
    *,
    steps: int = 200,
    batch: int = 16,
    learning_rate: float = 2e-3,
    smoothness: float = 0.05,
    log_every: int = 25,
    seed: int = 0,
) -> GeneratorReport:
    """Train a `MouthGenerator` on sound alone; no true mouth enters the loss.

    Args:
        sync: (faces (B, 3, T=5, 96, 96) in [0, 1], mels (B, 1, 80, 16)) -> scalar to minimise.
        portrait: the face to animate.
        audio: waveforms (N,) float32 at 16 kHz to learn from.
        heldout: utterances to measure on; never learnt from.
        steps: updates.
        batch: windows per update.
        learning_rate: of Adam, after a short warm-up; falls to a tenth along a cosine.
        smoothness: weight of the mean squared change between neighbouring frames' mouths.
        log_every: steps between two rows of the report.
        seed: of the generator's start and of the windows it sees.

    Raises:
        ValueError: no audio, or nothing held out.
    """
    if not audio or not heldout:
        raise ValueError("audio, heldout: expected at least one waveform and one utterance.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        generator = MouthGenerator(portrait)
    rng = np.random.default_rng(seed)
    mels = torch.cat([_Heard.of(wave).mels for wave in audio])
    tests = [_Heard.of(said.audio) for said in heldout]
    truths = [
        said.mouth[_MIDDLE : _MIDDLE + len(heard.mels), 0].astype(np.float64)
        for said, heard in zip(heldout, tests, strict=True)
    ]
    probe = torch.cat([heard.mels for heard in tests])
    probe = probe[np.linspace(0, len(probe) - 1, 2 * batch).round().astype(int)]
    adam = torch.optim.Adam(generator.parameters(), lr=learning_rate, betas=(0.9, 0.98))
    warmup = max(1, steps // 20)

    def measure(step: int) -> Row:
        with torch.no_grad():
            loss = float(sync(generator(probe), probe))
        openings = [_opening(generator, heard.mels) for heard in tests]
        made, true = np.concatenate(openings), np.concatenate(truths)
        loud = np.concatenate([heard.loudness for heard in tests])
        return Row(step, loss, _agreement(made, true), _agreement(made, loud))

    # The widest mouths and the most closed ones of the first utterance, in the order of time.
    order = np.argsort(truths[0], kind="stable")
    moments = np.sort(order[np.linspace(0, len(order) - 1, 8).round().astype(int)])

    def film() -> np.ndarray:
        with torch.no_grad():
            return to_uint8(generator(tests[0].mels[moments])[:, :, _MIDDLE])

    before, faces = _opening(generator, tests[0].mels), [film()]
    rows = [measure(0)]
    for step in range(1, steps + 1):
        pace = min(1.0, step / warmup) * (0.55 + 0.45 * np.cos(np.pi * step / steps))
        adam.param_groups[0]["lr"] = learning_rate * pace
        heard = mels[rng.integers(len(mels), size=batch)]
        mouth = generator.mouth(heard)
        loss = sync(generator.draw_faces(mouth), heard)
        loss = loss + smoothness * mouth.diff(dim=1).square().mean()
        adam.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(generator.parameters(), 1.0)
        adam.step()
        if step % log_every == 0 or step == steps:
            rows.append(measure(step))
    return GeneratorReport(
        rows=rows,
        truth=truths[0],
        before=before,
        after=_opening(generator, tests[0].mels),
        faces=np.stack([*faces, film()]),
        face_frames=[int(at) + _MIDDLE for at in moments],
    )


def draw(report: GeneratorReport, path: Path) -> None:
    """Write a picture (the suffix says SVG or PNG): mouth curves, learning curve, faces."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 9), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(4, 2, height_ratios=(1.5, 0.9, 0.9, 1.2))
    curves = figure.add_subplot(grid[0, :])
    seconds = (np.arange(len(report.truth)) + _MIDDLE) / FPS
    curves.plot(seconds, report.truth, color="0.6", linewidth=4, label="the mouth that spoke")
    curves.plot(seconds, report.before, color="tab:orange", label="generated, before")
    curves.plot(seconds, report.after, color="tab:blue", label="generated, after")
    curves.set(
        xlabel="seconds", ylabel="opening", ylim=(-0.02, 1.02), xlim=(seconds[0], seconds[-1])
    )
    curves.legend(ncols=3, loc="lower right", bbox_to_anchor=(1, 1), frameon=False)

    for line, (faces, title) in enumerate(zip(report.faces, ("before", "after"), strict=True)):
        strip = figure.add_subplot(grid[1 + line, :])
        strip.imshow(np.concatenate(list(faces), axis=1))
        width = faces.shape[2]
        strip.set_xticks(
            [(i + 0.5) * width for i in range(len(faces))],
            [f"{frame / FPS:.2f} s" for frame in report.face_frames],
            fontsize=8,
        )
        strip.set_yticks([])
        strip.set_ylabel(title)

    steps = [row.step for row in report.rows]
    learning = figure.add_subplot(grid[3, 0])
    learning.plot(steps, [row.loss for row in report.rows], color="tab:red")
    learning.set(ylabel="sync loss, held out", xlabel="step")
    agreement = figure.add_subplot(grid[3, 1])
    agreement.plot(steps, [row.truth_correlation for row in report.rows], label="true opening")
    agreement.plot(steps, [row.loudness_correlation for row in report.rows], label="loudness")
    agreement.set(ylabel="r with generated opening", xlabel="step", ylim=(-1, 1))
    agreement.legend(frameon=False, loc="lower right")
    figure.savefig(path)
