"""Read other people's checkpoints: the tensors in them, and no other object of a pickle."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from syncdisc_plugin.errors import WeightsError
from syncdisc_plugin.nn.foreign.expert import ForeignExpert
from syncdisc_plugin.nn.foreign.latentsync import (
    AUDIO_WIDTHS,
    FACE_WIDTHS,
    FRAMES,
    GROUPS,
    StableSyncNet,
)
from syncdisc_plugin.nn.foreign.wav2lip import Wav2LipExpert
from syncdisc_plugin.nn.foreign.wav2lip_384 import Wav2Lip384Expert

State = dict[str, torch.Tensor]

NETS: dict[type[ForeignExpert], str] = {
    Wav2LipExpert: "Wav2Lip's lipsync_expert.pth",
    Wav2Lip384Expert: "wav2lip_288x288's SyncNet_color_384",
    StableSyncNet: "LatentSync's StableSyncNet (syncnet_16_pixel.yaml, syncnet_16_pixel_attn.yaml)",
}
# The shape of this one weight tells the nets with Wav2Lip's parameter names apart.
TELLING = "face_encoder.16.conv_block.0.weight"
BY_SHAPE: dict[tuple[int, ...], type[ForeignExpert]] = {
    (512, 512, 1, 1): Wav2LipExpert,
    (1024, 512, 3, 3): Wav2Lip384Expert,
}
SYNCNETV2 = (1024, 1024, 3, 3)
# How the keys of nets begin that are taken for an expert, and are none that can be used here.
STRANGERS = {
    "face_encoder_blocks.": "is Wav2Lip's generator; its expert is lipsync_expert.pth",
    "netcnnlip.": "is the SyncNet that measures LSE: it hears MFCC, and its inputs are not a mel",
    "merge_encoder.": "is DINet's SyncNet: it hears DeepSpeech's features, not a mel",
}
ZIP = b"PK\x03\x04"


def read(path: Path | str) -> ForeignExpert:
    """The expert that a checkpoint of another project holds, on the CPU, fp32, in eval mode.

    The file may be what `torch.save` wrote (a state dict, or one under "state_dict", or that under
    "net"; with or without "module." before every key; with optimisers and counters beside it) or
    safetensors. Which net it is shows in its keys and shapes.

    Raises:
        WeightsError: the file is damaged, holds objects other than tensors and plain values, or
            a net that is not known here, or not all of it.
    """
    path = Path(path)
    state = _without_prefix(_tensors(path))
    with torch.device("meta"):  # no memory and no random numbers for weights that are replaced
        net = _recognise(path, state).float()  # whatever the host's default dtype
    wanted = net.state_dict()
    _compare(path, net, wanted, state)
    # Copies in fp32: the file may be in fp16, and may be overwritten later.
    values = {k: torch.empty_like(v, device="cpu").copy_(state[k]) for k, v in wanted.items()}
    for key, value in values.items():
        if not value.isfinite().all():
            raise WeightsError(
                f"weights {path}: {key!r} holds NaN or infinity. "
                "Give a checkpoint from before its training diverged."
            )
    net.load_state_dict(values, strict=True, assign=True)
    return net.eval()


def _tensors(path: Path) -> State:
    """The tensors of a file, by name."""
    try:
        with path.open("rb") as raw:
            head = raw.read(16)
        # torch < 2.6 unpickles anything in a tar archive, whatever weights_only says.
        is_tar = tarfile.is_tarfile(path)
    except OSError as error:
        raise WeightsError(f"weights {path}: {error}. Give the path of a checkpoint.") from error
    if is_tar:
        raise WeightsError(
            f"weights {path}: a tar archive, as torch wrote before 0.4; those are not opened. "
            "Give the checkpoint inside it, or save it again with a newer torch."
        )
    try:
        if head[8:9] == b"{":  # safetensors: the length of a JSON header, then the header
            with safe_open(path, framework="pt") as file:
                tree = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        else:
            # Only the zip form, which torch writes since 1.6, can be mapped.
            mmap = head.startswith(ZIP)
            tree = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # a damaged pickle raises nearly anything
        raise WeightsError(f"weights {path}: {_why(error, head)}") from error
    for key in ("state_dict", "net"):
        if isinstance(tree, Mapping) and isinstance(tree.get(key), Mapping):
            tree = tree[key]
    found = {
        key: value
        for key, value in (tree.items() if isinstance(tree, Mapping) else ())
        if isinstance(key, str) and isinstance(value, torch.Tensor) and not value.is_meta
    }
    if not found:
        came = f"keys {_some(tree)}" if isinstance(tree, Mapping) else type(tree).__name__
        raise WeightsError(
            f'weights {path}: expected tensors by name, or those under "state_dict", got {came}. '
            "Save the net's state_dict()."
        )
    return found


def _without_prefix(state: State) -> State:
    """The keys as the bare net has them: DataParallel puts "module." before each."""
    while all(key.startswith("module.") for key in state):
        state = {key.removeprefix("module."): value for key, value in state.items()}
    return state


def _why(error: Exception, head: bytes) -> str:
    """What torch or safetensors could not read, and what helps."""
    text = " ".join(str(error).split())
    unknown = re.search(r"GLOBAL (\S+)", text)
    if unknown:
        return (
            f"it holds more than tensors ({unknown[1]}); to unpickle such objects can run any "
            "code, so it is refused. If you trust the file, save its tensors alone: "
            'torch.save(torch.load(path, weights_only=False)["state_dict"], "tensors.pth").'
        )
    if "TorchScript" in text:
        return "a TorchScript program, which is not run here. Give the net's state_dict()."
    reason = text.split(". ")[0].rstrip(".")[:200] or type(error).__name__
    return (
        f"damaged, cut short, or no checkpoint at all: it begins with {head[:12]!r} ({reason}). "
        "Download or copy it again."
    )


def _recognise(path: Path, state: State) -> ForeignExpert:
    """The net whose keys these are, with weights yet to come."""
    if "visual_encoder.conv_in.weight" in state:
        return _stable_syncnet(path, state)
    shape = tuple(state[TELLING].shape) if TELLING in state else ()
    if shape in BY_SHAPE:
        return BY_SHAPE[shape]()
    if shape == SYNCNETV2:
        raise WeightsError(
            f"weights {path}: SyncNet_color of wav2lip_288x288's models/syncnetv2.py, which takes "
            "faces of 192 pixels only and is not supported. SyncNet_color_384 of its "
            "models/syncnet.py is, which its expert trainer writes: give a checkpoint of that."
        )
    for start, what in STRANGERS.items():
        if any(key.startswith(start) for key in state):
            raise WeightsError(f"weights {path}: this {what}. Known: {_known()}.")
    raise WeightsError(
        f"weights {path}: an unknown net of {len(state)} tensors, {_some(state)}. "
        f"Give a checkpoint of one of these: {_known()}."
    )


def _stable_syncnet(path: Path, state: State) -> StableSyncNet:
    """The depth, the widths and the places of attention can be read off the keys; strides not."""
    face, face_attention = _tower(path, state, "visual_encoder")
    audio, audio_attention = _tower(path, state, "audio_encoder")
    channels = state["visual_encoder.conv_in.weight"].shape[1:2]
    fits = channels == (3 * FRAMES,) and face[-1:] == audio[-1:]
    fits &= (len(face), len(audio)) == (len(FACE_WIDTHS), len(AUDIO_WIDTHS))
    if not fits or any(width < GROUPS or width % GROUPS for width in (*face, *audio)):
        raise WeightsError(
            f"weights {path}: a StableSyncNet of another configuration: {[*channels]} channels "
            f"come in, blocks of {[*face]} see and of {[*audio]} hear. Give a checkpoint of "
            "syncnet_16_pixel.yaml or syncnet_16_pixel_attn.yaml (48 channels; 8 and 7 blocks)."
        )
    return StableSyncNet(face, audio, face_attention, audio_attention)


def _tower(path: Path, state: State, name: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(channels of the blocks, after which of them attention stands) of one tower."""
    pattern = re.compile(rf"{name}\.down_blocks\.(\d+)\.(\w+)\.")
    parts: dict[int, set[str]] = {}
    for match in filter(None, map(pattern.match, state)):
        parts.setdefault(int(match[1]), set()).add(match[2])
    widths: list[int] = []
    attention: list[int] = []
    for place, names in sorted(parts.items()):
        telling = f"{name}.down_blocks.{place}.norm2.weight"
        if "attn" in names:
            attention.append(len(widths) - 1)
        elif telling in state:
            widths.append(state[telling].numel())
        else:
            raise WeightsError(
                f"weights {path}: a StableSyncNet, but {telling!r} is missing. "
                "Save the whole state_dict()."
            )
    return tuple(widths), tuple(attention)


def _compare(path: Path, net: ForeignExpert, wanted: State, state: State) -> None:
    """Refuse a net of which something is missing, too much, or of another shape."""
    wrong = []
    if missing := [key for key in wanted if key not in state]:
        wrong.append(f"missing {_some(missing)}")
    if extra := [key for key in state if key not in wanted]:
        wrong.append(f"too much {_some(extra)}")
    for key in wanted:
        if key in state and wanted[key].shape != state[key].shape:
            came, right = tuple(state[key].shape), tuple(wanted[key].shape)
            wrong.append(f"{key!r} has shape {came}, not {right}")
    if wrong:
        more = f" and {len(wrong) - 4} more" if len(wrong) > 4 else ""
        raise WeightsError(
            f"weights {path}: expected the {len(wanted)} tensors of {NETS[type(net)]}, got "
            f"{len(state)}: {'; '.join(wrong[:4])}{more}. "
            "It is a changed or cut net: give the original's checkpoint, saved whole."
        )


def _some(names: Iterable[Any], most: int = 4) -> str:
    """'a', 'b', 'c', 'd' and 9 more."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(repr(name) for name in names[:most]) + more


def _known() -> str:
    return "; ".join(NETS.values())
