"""What each known generator hands to its sync loss: the presets of `SyncLoss.for_host`.

Where a host's own loss is given a cut or stacked tensor, the preset is for the tensor before that:
what the generator returned. Sources: the repositories' training scripts, file by file in
generator_integration/. Regions: `bench/host_crops.py`, means over 66 speakers.
"""

from __future__ import annotations

from dataclasses import dataclass

from syncdisc_plugin.frames import FrameFormat


@dataclass(frozen=True)
class Host:
    """One generator repository."""

    repository: str
    """Where it lives on GitHub."""
    frames: FrameFormat
    """What its generator returns."""
    audio: str
    """"mel": its batches carry Wav2Lip's mel; "waveform": they carry learned features, so that
    the waveform and the index of the first frame must be passed."""


HOSTS = {
    "wav2lip": Host(
        "Rudrabha/Wav2Lip",
        FrameFormat("b c t h w", 5, color="bgr"),
        "mel",
    ),
    "wav2lip_288": Host(
        "primepake/wav2lip_288x288",
        FrameFormat("b c t h w", 5, color="bgr"),
        "mel",
    ),
    # Decoded pixels, whole 256x256 faces as aligned.
    "latentsync": Host(
        "bytedance/LatentSync",
        FrameFormat("(b t) c h w", 16, "-1..1", region=(-0.06, 0.84, 0.06, 0.96)),
        "mel",
    ),
    # Decoded pixels; 16 frames where predicted ones stand among true ones.
    "musetalk": Host(
        "TMElyralab/MuseTalk",
        FrameFormat("(b t) c h w", 16, "-1..1", region=(0.01, 0.97, 0.01, 0.99)),
        "mel",
    ),
    # DeepSpeech features cannot be turned into a mel.
    "dinet": Host(
        "MRzzm/DINet",
        FrameFormat("(t b) c h w", 5, region=(-0.26, 0.85, -0.03, 1.05)),
        "waveform",
    ),
    "diff2lip": Host(
        "soumik-kanad/diff2lip",
        FrameFormat("(b t) c h w", 5, "-1..1"),
        "mel",
    ),
    # It makes single frames: five consecutive ones of a video have to be collected first.
    "ip_lap": Host(
        "Weizhi-Zhong/IP_LAP",
        FrameFormat("(b t) c h w", 5, color="bgr", region=(-0.23, 0.95, 0.06, 0.95)),
        "mel",
    ),
    # Five consecutive frames of each clip.
    "talklip": Host(
        "Sxjdwang/TalkLip",
        FrameFormat("(b t) c h w", 5, color="bgr"),
        "waveform",
    ),
    # Its trainer is closed: sync.check tells the colour order.
    "video_retalking": Host(
        "OpenTalker/video-retalking",
        FrameFormat("b c t h w", 5, region=(0.01, 0.95, 0.0, 1.01)),
        "mel",
    ),
    # Single frames, as IP_LAP.
    "ultralight": Host(
        "anliyuan/Ultralight-Digital-Human",
        FrameFormat("(b t) c h w", 5, color="bgr", region=(-0.76, 0.69, -0.04, 1.05)),
        "waveform",
    ),
}


def host(name: str) -> Host:
    """The preset of that name. Raises ValueError for an unknown one."""
    if name not in HOSTS:
        raise ValueError(
            f"host: expected one of {sorted(HOSTS)}, got {name!r}. For another generator describe "
            "its frames: SyncLoss(layout=..., value_range=..., color=..., region=...)."
        )
    return HOSTS[name]
