"""A host's frames: how they lie in the tensor, what their values mean, where the face is."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Integral, Real

import torch
import torch.nn.functional as F
from einops import EinopsError, rearrange

from syncdisc_plugin.ranges import check_range
from syncdisc_plugin.spec import ClipSpec

LAYOUTS = (
    "b c t h w",
    "b t c h w",
    "b (t c) h w",
    "b (c t) h w",
    "(b t) c h w",
    "(t b) c h w",
)
VALUE_RANGES = {"0..1": (0.0, 1.0), "-1..1": (-1.0, 1.0), "0..255": (0.0, 255.0)}
COLORS = ("rgb", "bgr")
# Top, bottom, left and right of the detector's box, in heights and widths of the host's frame.
REGIONS = {"face": (0.0, 1.0, 0.0, 1.0), "lower": (-1.0, 1.0, 0.0, 1.0)}
BEYOND = 0.25  # of the frame: how far what is looked at may stick out; edges are repeated
LEAST_PX = 16  # fewer rows or columns show no lips
Box = tuple[float, float, float, float]
Edges = tuple[int, int, int, int]


@dataclass(frozen=True)
class FrameFormat:
    """A host's frames in words; `split`, `cut` and `read` make of them what the net sees."""

    layout: str | None = None
    """How the axes lie, as an einops pattern (`LAYOUTS`): Wav2Lip's generator gives "b c t h w",
    its expert wants "b (t c) h w", diffusion models "(b t) c h w". None: told by the shape, where
    flattened frames are taken as "(b t) c h w" and need n_frames."""
    n_frames: int | None = None
    """T, consecutive frames of one item; needed for flattened frames, checked for others."""
    value_range: str = "0..1"
    """"0..1", "-1..1" or "0..255"."""
    color: str = "rgb"
    """"rgb", or "bgr" (what cv2 reads, as in Wav2Lip)."""
    region: str | Box = "face"
    """Where the face detector's box lies: "face" (the frame is the box; its lower half is taken),
    "lower" (the frame is the lower half of the box already), or (top, bottom, left, right) in
    heights and widths of the frame. A box may stick out where nothing of it is looked at, and by a
    quarter of the frame elsewhere, where edges are repeated."""
    fps: float = 25.0
    """Frames per second of the host's video. Frames are picked at the rate of the weights."""

    def __post_init__(self) -> None:
        """Refuse words that mean nothing."""
        for name, choices in (("value_range", VALUE_RANGES), ("color", COLORS)):
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"{name}: expected one of {sorted(choices)}, got {getattr(self, name)!r}."
                )
        if self.layout is not None and self.layout not in LAYOUTS:
            raise ValueError(f"layout: expected one of {list(LAYOUTS)}, got {self.layout!r}.")
        if self.n_frames is not None and (
            not isinstance(self.n_frames, Integral) or self.n_frames < 1
        ):
            raise ValueError(
                f"n_frames: expected a number of frames of one item, got {self.n_frames!r}."
            )
        check_range("fps", self.fps, least=1, most=240, fix="Those of the video, per second.")
        top, bottom, left, right = self.box
        if not (top < bottom and left < right):
            raise ValueError(
                f"region: expected (top, bottom, left, right) with top < bottom and left < right, "
                f"in ratios of the frame, got {self.region!r}."
            )

    @property
    def box(self) -> Box:
        """(top, bottom, left, right) of the detector's box, in heights and widths of a frame."""
        if isinstance(self.region, str):
            if self.region not in REGIONS:
                raise ValueError(
                    f"region: expected one of {sorted(REGIONS)} or (top, bottom, left, right) in "
                    f"ratios of the frame, got {self.region!r}."
                )
            return REGIONS[self.region]
        numbers = tuple(self.region) if isinstance(self.region, Iterable) else ()
        if len(numbers) != 4 or not all(isinstance(x, Real) for x in numbers):
            raise ValueError(
                f"region: expected four numbers (top, bottom, left, right), got {self.region!r}."
            )
        top, bottom, left, right = (float(x) for x in numbers)
        return top, bottom, left, right

    def split(self, frames: torch.Tensor) -> torch.Tensor:
        """A host's frames -> (B, T, 3, H, W), values as they are.

        Raises:
            TypeError: not a tensor.
            ValueError: a shape that does not fit the layout.
        """
        if not isinstance(frames, torch.Tensor):
            raise TypeError(
                f"frames: expected a tensor, got {type(frames).__name__}. Stack the frames with "
                "torch.stack(list_of_frames, dim=1)."
            )
        shape = tuple(frames.shape)
        if not frames.numel():
            raise ValueError(
                f"frames: expected at least one item, got shape {shape}. Leave the call out where "
                "nothing is selected."
            )
        layout = self.layout or _guess(shape, self.n_frames)
        sizes: dict[str, int] = {"c": 3}
        if self.n_frames is not None:
            sizes["t"] = self.n_frames
        elif layout in ("(b t) c h w", "(t b) c h w"):
            raise ValueError(
                f"frames: {shape} in layout {layout!r} does not say how many frames one item has. "
                "Name it: n_frames=T."
            )
        try:
            return rearrange(frames, f"{layout} -> b t c h w", **sizes)
        except EinopsError as error:
            known = ", ".join(f"{k} = {v}" for k, v in sizes.items())
            raise ValueError(
                f"frames: expected {layout!r} with {known}, got {shape}. "
                f"Name the layout that you have, one of {list(LAYOUTS)}, and n_frames."
            ) from error

    def windows(self, frames: torch.Tensor, spec: ClipSpec) -> int:
        """How many windows of the weights lie in an item of split frames (B, T, 3, H, W).

        Raises:
            ValueError: not even one.
        """
        return len(self._picked(frames, spec)) - spec.window_frames + 1

    def cut(self, frames: torch.Tensor, spec: ClipSpec) -> tuple[torch.Tensor, Edges]:
        """The part of split frames (B, T, 3, H, W) that the net looks at.

        Returns:
            A view of the frames, and how many columns and rows are missing beyond their edges:
            left, right, top, bottom.

        Raises:
            ValueError: a face that is not where it should be.
        """
        rows, columns = frames.shape[-2:]
        if min(rows, columns) < LEAST_PX:
            raise ValueError(
                f"frames: expected at least {LEAST_PX} rows and columns, got {rows}x{columns}. "
                "Pass the generated faces, not feature maps or latents; decode latents first."
            )
        if spec.region == "lower" and self.region == "face" and columns > 1.8 * rows:
            raise ValueError(
                f"frames: expected whole faces, got {rows} rows and {columns} columns, which look "
                'like lower halves. Pass the faces before they are cut, or say region="lower".'
            )
        if spec.region == "lower" and self.region == "lower" and columns < 1.3 * rows:
            raise ValueError(
                f"frames: expected lower halves, twice as wide as high, got {rows} rows and "
                f'{columns} columns, which look like whole faces. Say region="face".'
            )
        top, bottom, left, right = self.box
        if spec.region == "lower":
            top = (top + bottom) / 2
        if min(top, left) < -BEYOND or max(bottom, right) > 1 + BEYOND:
            raise ValueError(
                f"region: {self.region!r} puts what the weights look at ({spec.region} part: rows "
                f"{top:.2f}..{bottom:.2f}, columns {left:.2f}..{right:.2f}) outside the frame. "
                "Pass frames that show the whole of it, or another box."
            )
        y0, y1 = round(top * rows), round(bottom * rows)
        x0, x1 = round(left * columns), round(right * columns)
        edges = (max(0, -x0), max(0, x1 - columns), max(0, -y0), max(0, y1 - rows))
        return frames[..., max(0, y0) : y1, max(0, x0) : x1], edges

    def read(self, part: torch.Tensor, edges: Edges, spec: ClipSpec) -> torch.Tensor:
        """What `cut` gave -> what the net sees: (B, F, 3, h, w) RGB in [0, 1], fp32.

        F counts frames at `spec.fps`; h, w are `spec.input_hw` (antialiased, differentiable).
        """
        picked = self._picked(part, spec)
        x = part.float() if len(picked) == part.shape[1] else part[:, picked].float()
        low, high = VALUE_RANGES[self.value_range]
        if (low, high) != (0, 1):
            x = (x - low) / (high - low)
        x = x.flip(2) if self.color == "bgr" else x
        if any(edges) or tuple(x.shape[-2:]) != spec.input_hw:
            flat = x.flatten(0, 1)
            if any(edges):
                flat = F.pad(flat, edges, mode="replicate")
            flat = F.interpolate(
                flat, spec.input_hw, mode="bilinear", antialias=True, align_corners=False
            )
            x = flat.unflatten(0, x.shape[:2])
        return x

    def check_values(self, frames: torch.Tensor) -> None:
        """Look at the values: a wrong range is the commonest mistake, and a silent one.

        Raises:
            ValueError: more than one value in a hundred lies outside `value_range` by more than a
                tenth of it, or one is not finite.
        """
        x = frames.detach().float()
        least, most = (float(v) for v in x.aminmax())
        if not (abs(least) < float("inf") and abs(most) < float("inf")):  # nan fails both
            raise ValueError(
                f"frames: expected finite values, got {least:.3g}..{most:.3g}. The generator "
                "diverged before the sync loss saw it: lower its learning rate, or look at its "
                "other losses."
            )
        got = f"frames: expected values in {self.value_range}, got {least:.3g}..{most:.3g}"
        if not fits(x, self.value_range):
            likely = [name for name in ("0..1", "-1..1", "0..255") if fills(x, name)]
            if likely:
                raise ValueError(f'{got}. Say value_range="{likely[0]}".')
            low, high = VALUE_RANGES[self.value_range]
            raise ValueError(
                f"{got}. Bring them there: a sigmoid or tanh at the generator's end, or "
                f"frames.clamp({low:g}, {high:g}) while it is new; undo a normalisation by mean "
                "and deviation."
            )
        if self.value_range == "0..255" and (least or most):
            small = [name for name in ("0..1", "-1..1") if fits(x, name)]
            if small:
                raise ValueError(f'{got}, all but black. Name the range: value_range="{small[0]}".')

    def _picked(self, frames: torch.Tensor, spec: ClipSpec) -> list[int]:
        """Frames at the weights' rate, the nearest in time, as `prepare` picks them."""
        have, need, step = frames.shape[1], spec.window_frames, self.fps / spec.fps
        # Of two that are as near, the earlier one.
        picked = [math.ceil(i * step - 0.5) for i in range(int(have / step) + 1)]
        picked = [i for i in picked if i < have]
        if len(picked) < need:
            wanted = math.ceil((need - 1) * step - 0.5) + 1
            what = "single frames" if have == 1 else f"{have} frames per item"
            raise ValueError(
                f"frames: expected at least {wanted} consecutive frames per item at "
                f"{self.fps:g} fps ({need} at {spec.fps}), got {what}: {tuple(frames.shape)} as "
                "(B, T, 3, H, W). Sync is a matter of motion: let the generator make "
                f"{wanted} consecutive frames of one video and pass them together, e.g. as "
                f'layout="(b t) c h w" with n_frames={wanted}.'
            )
        return picked


def fits(x: torch.Tensor, value_range: str) -> bool:
    """Whether all but one value in a hundred lie in a range or within a tenth of it.

    Decoders, and generators without a last sigmoid, overshoot.
    """
    low, high = VALUE_RANGES[value_range]
    slack = 0.1 * (high - low)
    return float(((x < low - slack) | (x > high + slack)).float().mean()) <= 0.01


def fills(x: torch.Tensor, value_range: str) -> bool:
    """Whether values fit a range, and fill so much of it that it can be what is meant.

    From a dark place up: what goes a little below 0 is not in -1..1.
    """
    low, high = VALUE_RANGES[value_range]
    least, most = float(x.min()), float(x.max())
    quarter = (high - low) / 4
    return fits(x, value_range) and most - least > quarter and least < low + quarter


def _guess(shape: tuple[int, ...], n_frames: int | None) -> str:
    """The layout that a shape tells, given that windows have more than three frames."""
    if len(shape) == 5 and shape[1] == 3:
        return "b c t h w"
    if len(shape) == 5 and shape[2] == 3:
        return "b t c h w"
    if len(shape) == 4 and shape[1] == 3:
        if n_frames is None:
            raise ValueError(
                f"frames: {shape} are single frames, or flattened ones. Flattened: name n_frames=T "
                '(and layout="(t b) c h w" if all first frames come first). Single: let the '
                "generator make T >= 5 consecutive frames of one video and pass them together."
            )
        return "(b t) c h w"
    if len(shape) == 4 and shape[1] % 3 == 0 and shape[1] > 9:
        return "b (t c) h w"
    if len(shape) == 5 and shape[-1] == 3:
        hint = "Channels come last here; move them: frames.movedim(-1, 1)."
    elif len(shape) in (4, 5) and 1 in shape[1:3]:
        hint = "These look grey; repeat the channel three times, or pass the colour frames."
    elif len(shape) == 4 and shape[1] == 4:
        hint = "These look like latents; decode them to pixels first."
    else:
        hint = f"Layouts that are understood: {', '.join(LAYOUTS)}."
    raise ValueError(
        "frames: expected (B, 3, T, H, W), (B, T, 3, H, W), (B, 3T, H, W), or (B*T, 3, H, W) with "
        f"n_frames=T; got {shape}. {hint}"
    )
