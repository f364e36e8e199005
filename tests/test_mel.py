from __future__ import annotations

import numpy as np
import pytest
import torch
from synth import talk

from syncdisc_plugin.mel import log_mel
from syncdisc_plugin.spec import MelSpec


def host_mel(audio: np.ndarray, pad_mode: str = "constant") -> np.ndarray:
    """Wav2Lip's audio.py, with librosa and scipy, in double precision."""
    librosa = pytest.importorskip("librosa")
    from scipy.signal import lfilter

    wave = lfilter([1, -0.97], [1], audio.astype(np.float64))
    spectrum = librosa.stft(y=wave, n_fft=800, hop_length=200, win_length=800, pad_mode=pad_mode)
    basis = librosa.filters.mel(sr=16000, n_fft=800, n_mels=80, fmin=55, fmax=7600)
    level = 20 * np.log10(np.maximum(1e-5, basis @ np.abs(spectrum))) - 20
    return np.clip(8 * (level + 100) / 100 - 4, -4, 4)


def ramp_of_noise(seconds: float = 3.0) -> np.ndarray:
    """Noise that grows from nothing to far beyond full scale: every value of the mel occurs."""
    n = round(seconds * 16000)
    noise = np.random.default_rng(0).standard_normal(n)
    return (noise * 10.0 ** np.linspace(-7, 1.5, n)).astype(np.float32)


@pytest.mark.parametrize("pad_mode", ["constant", "reflect"])
def test_equals_librosa_over_the_whole_range(pad_mode: str) -> None:
    audio = ramp_of_noise()
    expected = host_mel(audio, pad_mode)
    assert expected.min() == -4 and expected.max() == 4
    assert np.histogram(expected, bins=80, range=(-4, 4))[0].all()
    got = log_mel(torch.from_numpy(audio), MelSpec(pad_mode=pad_mode))
    np.testing.assert_allclose(got.numpy(), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("pad_mode", ["constant", "reflect"])
@pytest.mark.parametrize("length", [16000, 16001, 16199, 3200, 801])
def test_equals_librosa_at_loud_edges(length: int, pad_mode: str) -> None:
    audio = talk(1, speaker=2).audio[9000 : 9000 + length]
    assert np.abs(audio[:100]).max() > 0.001  # speech from the first sample on
    got = log_mel(torch.from_numpy(audio), MelSpec(pad_mode=pad_mode)).numpy()
    assert got.shape == (80, length // 200 + 1)
    np.testing.assert_allclose(got, host_mel(audio, pad_mode), rtol=0, atol=1e-4)


def test_pad_mode_matters_at_the_edge_and_nowhere_else() -> None:
    audio = torch.from_numpy(talk(1, speaker=2).audio[9000:25000])
    apart = (log_mel(audio) - log_mel(audio, MelSpec(pad_mode="reflect"))).abs().amax(0)
    assert apart[0] > 0.01
    assert apart[3:-3].max() < 1e-4


@pytest.mark.parametrize("length", [1, 100, 640])
def test_short_audio_as_librosa(length: int) -> None:
    audio = np.random.default_rng(1).normal(0, 0.1, length).astype(np.float32)
    with pytest.warns(UserWarning, match="n_fft"):  # librosa finds it short, too
        expected = host_mel(audio)
    got = log_mel(torch.from_numpy(audio))
    np.testing.assert_allclose(got.numpy(), expected, rtol=0, atol=1e-4)


def test_silence_is_the_floor() -> None:
    assert (log_mel(torch.zeros(8000)) == -4).all()


def test_other_constants_move_the_floor_and_the_ceiling() -> None:
    spec = MelSpec(max_abs=1.0, n_mels=40)
    got = log_mel(torch.from_numpy(ramp_of_noise()), spec)
    assert got.shape[0] == 40
    assert got.min() == -1 and got.max() == 1


def test_a_click_is_seen_at_its_own_mel_frame() -> None:
    for at in (10, 37):
        audio = torch.zeros(16000)
        audio[at * 200] = 0.5
        level = log_mel(audio).sum(0)
        assert int(level.argmax()) == at


def test_cutting_whole_hops_shifts_the_mel() -> None:
    audio = torch.from_numpy(talk(0).audio[:16000])
    whole, cut = log_mel(audio), log_mel(audio[5 * 200 :])
    torch.testing.assert_close(cut[:, 3:], whole[:, 8:], rtol=0, atol=1e-4)


def test_batch_equals_single() -> None:
    audio = torch.stack([torch.from_numpy(talk(s, speaker=s).audio[:20000]) for s in range(3)])
    together = log_mel(audio)
    assert together.shape == (3, 80, 101)
    for one, row in zip(audio, together, strict=True):
        torch.testing.assert_close(log_mel(one), row, rtol=0, atol=1e-5)
        torch.testing.assert_close(log_mel(one[None])[0], row, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["silence", "noise", "click", "half silent", "beyond full scale"])
def test_gradient_is_finite(kind: str) -> None:
    noise = torch.randn(4000, generator=torch.Generator().manual_seed(0))
    audio = {
        "silence": torch.zeros(4000),
        "noise": 0.1 * noise,
        "click": torch.zeros(4000).index_fill(0, torch.tensor([2000]), 1.0),
        "half silent": 0.1 * noise * (torch.arange(4000) < 2000),
        "beyond full scale": 100 * noise,
    }[kind].requires_grad_()
    log_mel(audio).sum().backward()
    assert audio.grad is not None and audio.grad.isfinite().all()
    if kind == "noise":
        assert (audio.grad != 0).float().mean() > 0.99


def test_result_is_fp32_whatever_comes_in() -> None:
    audio = torch.from_numpy(talk(0).audio[:8000])
    expected = log_mel(audio)
    got = log_mel(audio.double())
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


def test_autocast_of_the_host_does_not_blur_the_mel() -> None:
    audio = torch.from_numpy(talk(0).audio[:8000])
    expected = log_mel(audio)
    with torch.autocast("cpu", torch.bfloat16):
        got = log_mel(audio)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("audio", "got"),
    [
        (torch.zeros(800, dtype=torch.int16), "got torch.int16.*divide 16-bit samples"),
        (np.zeros(800, np.float32), "got ndarray.*from_numpy"),
    ],
)
def test_what_is_no_tensor_of_floats_is_refused(audio: object, got: str) -> None:
    with pytest.raises(TypeError, match=got):
        log_mel(audio)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(), (0,), (2, 0), (1, 1, 4000)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"audio: expected \(N,\) or \(B, N\).*got \("):
        log_mel(torch.zeros(shape))
