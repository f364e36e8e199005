"""The generator: faces without a lower half, other frames of the person, and sound -> faces."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from generator_integration.reference.layers import (
    Beside,
    Ear,
    FaceEncoder,
    Level,
    Matcher,
    Modulated,
    SoundEncoder,
    conv,
    double,
    fetch,
)
from syncdisc_plugin.atomic import replacing
from syncdisc_plugin.errors import WeightsError
from syncdisc_plugin.spec import ClipSpec
from syncdisc_plugin.weights import check_hash, shipped

FORMAT = "syncdisc-generator-1"
CONTEXT = 3  # frames on either side that have a say in a frame: two by sound, one by picture


@dataclass(frozen=True)
class GeneratorSettings:
    """Sizes of the generator."""

    width: int = 32
    """Channels of the thinnest layers of sound, 3/4 of them at half of the face's size, six times
    as many at a sixteenth; 64 or more for a GPU."""
    size: int = 96
    """Side of the square face crop in pixels, a multiple of 32."""
    embedding: int = 256
    """Length of the vector that carries what is said and who speaks."""
    ear_width: int = 0
    """Channels of the first layer of a discriminator's audio tower that hears in place of layers
    of the generator's own; the trainer sets it from `--ear`. 0: they are its own."""
    ear_length: int = 256
    """Length of that discriminator's embedding."""

    def __post_init__(self) -> None:
        """Refuse sizes that no net could be built for."""
        if self.size < 32 or self.size % 32:
            raise ValueError(f"size: expected a multiple of 32, got {self.size}. Use 96 or 192.")
        if self.width < 4 or self.width % 4:
            raise ValueError(f"width: expected a multiple of 4, got {self.width}. Use 32.")
        if self.ear_width < 0 or self.ear_length < 1:
            raise ValueError(
                f"ear_width, ear_length: expected at least 0 and 1, got {self.ear_width} and "
                f"{self.ear_length}. Leave them out and name a discriminator by --ear."
            )
        if self.embedding < 1:
            raise ValueError(f"embedding: expected at least 1, got {self.embedding}. Use 256.")

    @property
    def channels(self) -> tuple[int, int, int, int]:
        """Channels at a half, a quarter, an eighth and a sixteenth of the size."""
        return 3 * self.width // 4, 3 * self.width // 2, 3 * self.width, 6 * self.width


class Generator(nn.Module):
    """Lower halves of faces that say what is heard.

    The upper half of each frame is encoded (the lower one is cut off before anything looks at it),
    the references are encoded whole, once for all frames. A field of movements lays the references'
    features and pixels under each frame; a decoder, steered at every size by the sound, draws
    rows `first_row` and below, mixing own colour and moved pixels. Further up the output is the
    input, bit for bit.

    Args:
        settings: sizes.
        spec: face crop, frame rate and mel; `ClipSpec(face_px=settings.size)` by default.

    Raises:
        ValueError: the spec's face has another size.
    """

    def __init__(
        self, settings: GeneratorSettings | None = None, spec: ClipSpec | None = None
    ) -> None:
        super().__init__()
        s = self.settings = settings or GeneratorSettings()
        self.spec = spec or ClipSpec(face_px=s.size)
        if self.spec.face_px != s.size:
            raise ValueError(
                f"spec: expected face_px={s.size} as in the settings, got {self.spec.face_px}. "
                "Use dataclasses.replace(spec, face_px=size)."
            )
        self.seam = 4 * max(1, round(s.size / 48))
        """Rows above the middle in which input and output are blended."""
        self.first_row = s.size // 2 - self.seam
        """The first row that may differ from the input's."""
        c1, c2, c3, c4 = channels = s.channels
        e, mel = s.embedding, self.spec.mel
        self.context = FaceEncoder(channels, (False, False, True, True))
        self.reference = FaceEncoder(channels, (False, True, True, True))
        self.sound: Ear | SoundEncoder
        if s.ear_width:
            self.sound = Ear(self.spec, s.ear_width, s.ear_length, e)
        else:
            self.sound = SoundEncoder(s.width, e, mel.n_mels, self.spec.window_mels)
        self.condition = nn.Sequential(nn.Linear(e + 2 * c4, e), nn.SiLU(), nn.Linear(e, e))
        self.match = Matcher(c3, e, s.width)
        self.merge4, self.block4 = conv(2 * c4, c4, 1), Modulated(c4, e)
        self.beside = Beside(c4)
        self.levels = nn.ModuleList(
            Level(small, c, e) for small, c in ((c4, c3), (c3, c2), (c2, c1))
        )
        self.fine = conv(c1, c1 // 2)
        self.paint = conv(c1 // 2 + 3, 4)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, masked: Tensor, reference: Tensor, mel: Tensor) -> Tensor:
        """Draw the lower halves.

        Args:
            masked: (B, T, 3, S, S) RGB in [0, 1], T consecutive frames; what lies in rows S//2 and
                below is never looked at, so whole faces do as well.
            reference: (B, R, 3, S, S) RGB in [0, 1], other frames of the same person, R >= 1.
            mel: (B, T, 1, 80, 16) in [-4, 4]: for frame f of the video the 16 mel frames from
                `timing.mel_start(f - 1)` on.

        Returns:
            (B, T, 3, S, S) RGB in [0, 1]; rows above `first_row` are the input's own.

        Raises:
            ValueError: a shape that does not fit.
        """
        self._check(masked, reference, mel)
        b, t = masked.shape[:2]
        half, first = self.settings.size // 2, self.first_row
        seen = masked[..., :half, :]
        context = self.context(seen.flatten(0, 1))
        others = [
            f.unflatten(0, reference.shape[:2]) for f in self.reference(reference.flatten(0, 1))
        ]
        who = torch.cat(
            [
                context[3].mean((2, 3)).unflatten(0, (b, t)),
                others[3].mean((1, 3, 4))[:, None].expand(-1, t, -1),
            ],
            dim=-1,
        )
        said = self.condition(torch.cat([self.sound(mel), who], dim=-1))
        # The hidden half is nothing but zeros at every size.
        whole = [F.pad(f, (0, 0, 0, f.shape[2])) for f in context]
        field = self.match(whole[2].unflatten(0, (b, t)), others[2], said)
        steer = said.flatten(0, 1)

        pooled = others[3].mean(1)[:, None].expand(-1, t, -1, -1, -1).flatten(0, 1)
        x = self.block4(self.merge4(torch.cat([whole[3], pooled], 1)), steer)
        x = self.beside(x.permute(0, 2, 3, 1).unflatten(0, (b, t))).flatten(0, 1)
        x = x.permute(0, 3, 1, 2)

        # From the first quarter-size row on, only what will be drawn is worked out.
        rows = (0, first // 4, first // 2)
        for level, row, own, other in zip(
            self.levels, rows, whole[2::-1], others[2::-1], strict=True
        ):
            x = level(x, own[:, :, row:], other, field, steer)
        lent = fetch(reference, field, first)
        x = torch.cat([F.silu(self.fine(double(F.silu(x)))), lent.to(x.dtype)], 1)
        painted = self.paint(x).float()
        colour, share = painted[:, :3].sigmoid(), painted[:, 3:].sigmoid()
        drawn = torch.lerp(lent, colour, share).unflatten(0, (b, t)).to(masked.dtype)
        return torch.cat([masked[..., :first, :], self._blend(seen[..., first:, :], drawn)], dim=-2)

    def _blend(self, seen: Tensor, drawn: Tensor) -> Tensor:
        """From the input's rows above the middle to the drawn ones, in a ramp."""
        n = self.seam
        ramp = (torch.arange(n, device=drawn.device, dtype=drawn.dtype)[:, None] + 0.5) / n
        return torch.cat([torch.lerp(seen, drawn[..., :n, :], ramp), drawn[..., n:, :]], dim=-2)

    def _check(self, masked: Tensor, reference: Tensor, mel: Tensor) -> None:
        s = self.settings.size
        bins, length = self.spec.mel.n_mels, self.spec.window_mels
        face = (3, s, s)
        if masked.ndim != 5 or masked.shape[2:] != face or masked.shape[1] < 1:
            raise ValueError(
                f"masked: expected (B, T, 3, {s}, {s}), got {tuple(masked.shape)}. "
                "Frames are the second axis, channels the third; resize the faces to the size."
            )
        b, t = masked.shape[:2]
        if reference.ndim != 5 or reference.shape[2:] != face or reference.shape[1] < 1:
            raise ValueError(
                f"reference: expected ({b}, R, 3, {s}, {s}) with R of at least 1, got "
                f"{tuple(reference.shape)}. One other frame of the same person is enough."
            )
        if reference.shape[0] != b:
            raise ValueError(
                f"reference: expected {b} items like masked, got {reference.shape[0]}. "
                "Each item has references of its own."
            )
        if tuple(mel.shape) != (b, t, 1, bins, length):
            raise ValueError(
                f"mel: expected {(b, t, 1, bins, length)}, one window for each frame, got "
                f"{tuple(mel.shape)}. Cut it for frame f from mel_start(f - 1) on, mel bins first."
            )


def save_generator(generator: Generator, path: Path | str, **about: Any) -> Path:
    """Write the net, its spec and settings, and `about` (JSON values) to one file, atomically."""
    path = Path(path)
    metadata = {
        "format": FORMAT,
        "spec": generator.spec.to_json(),
        "settings": json.dumps(asdict(generator.settings)),
        "about": json.dumps(about),
    }
    tensors = {k: v.detach().cpu().contiguous() for k, v in generator.state_dict().items()}
    with replacing(path) as temp:
        save_file(tensors, temp, metadata)
    return path


def load_generator(ref: str | Path = "base", device: str | torch.device = "cpu") -> Generator:
    """Load a generator in eval mode.

    Args:
        ref: a shipped name ("base"), or the path of a file that the trainer wrote.
        device: where to put it.

    Raises:
        WeightsError: unknown name, missing or damaged file, or not one of our generators.
    """
    path = resolve_generator(ref)
    about = read_generator(path)
    with torch.random.fork_rng(devices=[]):  # the caller's seed is the caller's
        net = Generator(about["settings"], about["spec"])
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        net.load_state_dict(tensors, strict=True)
    except (SafetensorError, RuntimeError) as error:
        what = " ".join(str(error).split()).rstrip(".")[:400]
        raise WeightsError(f"generator {path}: {what}. Write it again with the trainer.") from error
    return net.to(device).eval()


def read_generator(ref: str | Path = "base") -> dict[str, Any]:
    """What a file says of itself: spec, settings, and what `save_generator` was told.

    Raises:
        WeightsError: as `load_generator`.
    """
    path = resolve_generator(ref)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"generator {path}: not a safetensors file ({error}). Other projects' generators "
            "(.pth) are not loaded here; give a generator.safetensors that the trainer wrote."
        ) from error
    if metadata.get("format") != FORMAT:
        raise WeightsError(
            f"generator {path}: expected format {FORMAT!r}, got {metadata.get('format')!r}. "
            "Give a generator.safetensors that the trainer wrote; a stage3.safetensors is a "
            "discriminator, for --sync."
        )
    try:
        return {
            **json.loads(metadata["about"]),
            "spec": ClipSpec.from_json(metadata["spec"]),
            "settings": GeneratorSettings(**json.loads(metadata["settings"])),
        }
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(
            f"generator {path}: its metadata is damaged or of a newer version ({error}). "
            "Update the package, or train it again."
        ) from error


def resolve_generator(ref: str | Path = "base") -> Path:
    """Path of the generator that `ref` names; a shipped one is checked against SHA256SUMS.

    Raises:
        WeightsError: no such file, and none is shipped under that name; or a damaged one.
    """
    names = shipped("lipsync")
    if isinstance(ref, str) and ref in names:
        check_hash(names[ref])
        return names[ref]
    path = Path(ref)
    if path.is_file():
        return path
    raise WeightsError(
        f"generator {str(ref)!r}: no such file, and none is shipped under that name (shipped: "
        f"{sorted(names) or 'none'}). Train one: python -m generator_integration.reference.train "
        "--data STORE --out RUN; then give RUN/generator.safetensors."
    )
