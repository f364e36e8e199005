from __future__ import annotations

import torch
from einops import rearrange

from syncdisc_plugin.nn.foreign import Wav2LipExpert


def test_the_wav2lip_expert_has_the_originals_weights() -> None:
    net = Wav2LipExpert()
    assert sum(p.numel() for p in net.parameters()) == 16_435_072
    assert sum(p.numel() for p in net.face_encoder.parameters()) == 13_031_808
    state = net.state_dict()
    assert state["face_encoder.0.conv_block.0.weight"].shape == (32, 15, 7, 7)
    assert state["face_encoder.16.conv_block.1.running_mean"].shape == (512,)
    assert state["audio_encoder.13.conv_block.0.weight"].shape == (512, 512, 1, 1)
    assert len(state) == 7 * 31  # 17 + 14 blocks of a convolution and its norm


def test_its_windows_are_what_the_original_is_given() -> None:
    """Frames stacked as t * 3 + c, in BGR; every window by itself; unit, not negative."""
    torch.manual_seed(0)
    net = Wav2LipExpert().eval()
    frames, mel = torch.rand(2, 7, 3, 48, 96), torch.randn(2, 80, 24)
    starts = torch.tensor([0, 3, 6])
    with torch.no_grad():
        v, a = net.embed_frames(frames), net.embed_mel(mel, starts)
        for i in range(3):
            stacked = rearrange(frames[:, i : i + 5].flip(2), "b t c h w -> b (t c) h w")
            sound = mel[:, None, :, 3 * i : 3 * i + 16]
            for all_of_them, one in (
                (v, net.encode_frames(stacked)),
                (a, net.encode_mel(sound)),
            ):
                unit = torch.nn.functional.normalize(one, dim=1)
                torch.testing.assert_close(all_of_them[:, i], unit, rtol=1e-3, atol=1e-4)
    assert v.shape == a.shape == (2, 3, 512)
    assert (v >= 0).all() and (a >= 0).all()
