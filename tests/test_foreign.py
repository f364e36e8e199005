from __future__ import annotations

import torch

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


def test_its_embeddings_are_unit_and_non_negative() -> None:
    net = Wav2LipExpert().eval()
    with torch.no_grad():
        a, v = net(torch.randn(2, 1, 80, 16), torch.rand(2, 15, 48, 96))
    assert a.shape == v.shape == (2, 512)
    for x in (a, v):
        assert (x >= 0).all()
        torch.testing.assert_close(x.norm(dim=1), torch.ones(2))
