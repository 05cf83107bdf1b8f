"""Time of day and weather: where the light comes from, its colours, the haze, the sky."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import cv2
import numpy as np
import numpy.typing as npt

from .camera import Floats, View
from .textures import look_up_noise

Color = npt.NDArray[np.float32]


def rgb(red: float, green: float, blue: float) -> Color:
    """Return a colour as float32; 1 is the brightest that the image shows."""
    return np.array([red, green, blue], np.float32)


@dataclass(frozen=True)
class Weather:
    """The light of one scene. Colours are shares of 1 for red, green and blue."""

    sun: tuple[float, float, float]
    """Unit vector towards the sun (or towards the brightest part of the sky)."""
    haze: float
    """Metres after which 63 per cent of the light is the horizon's."""
    cloud_shift: float
    direct: Color = field(default_factory=lambda: rgb(0, 0, 0))
    """The sun's light; black without sun and shadows."""
    ambient: Color = field(default_factory=lambda: rgb(0.8, 0.8, 0.8))
    zenith: Color = field(default_factory=lambda: rgb(0.8, 0.8, 0.8))
    horizon: Color = field(default_factory=lambda: rgb(0.8, 0.8, 0.8))
    cloud: Color = field(default_factory=lambda: rgb(0.8, 0.8, 0.8))
    cover: float = 0.0
    """Share of the sky behind clouds, 0 to 1."""
    wet: float = 0.0
    """How much the road mirrors, 0 to 1."""
    night: float = 0.0
    """How many lamps and windows are lit, 0 to 1."""

    @property
    def shadows(self) -> bool:
        """Whether the sun casts shadows."""
        return float(self.direct.max()) > 0.05

    def shade(self, normal: tuple[float, float, float], lit: float = 1.0) -> Color:
        """Return the light on a surface with the unit ``normal``; ``lit`` 0 is in the shade."""
        facing = sum(n * s for n, s in zip(normal, self.sun, strict=True))
        sky = 0.86 + 0.14 * normal[1]
        light: Color = self.ambient * np.float32(sky)
        return light + self.direct * np.float32(max(facing, 0.0) * lit)

    def through_haze(self, color: Color, depth: float) -> Color:
        """Return ``color`` as it looks from ``depth`` metres away."""
        clear = np.float32(np.exp(-depth / self.haze))
        mixed: Color = color * clear + self.horizon * (1 - clear)
        return mixed


def sample_weather(rng: np.random.Generator) -> Weather:
    """Draw a time of day and a weather; both are moderate: every class stays recognisable."""
    kind = str(rng.choice(list(_KINDS), p=[share for share, _, _ in _KINDS.values()]))
    _, (lowest, highest), (haze0, haze1) = _KINDS[kind]
    azimuth, elevation = rng.uniform(-np.pi, np.pi), np.radians(rng.uniform(lowest, highest))
    level = np.cos(elevation)
    sun = (float(level * np.sin(azimuth)), float(np.sin(elevation)), float(level * np.cos(azimuth)))
    haze, shift = float(rng.uniform(haze0, haze1)), float(rng.uniform(0, 500))
    light = _fair if kind in ("noon", "low", "evening", "dusk") else _grey
    return light(rng, kind, Weather(sun=sun, haze=haze, cloud_shift=shift))


_KINDS: dict[str, tuple[float, tuple[float, float], tuple[float, float]]] = {
    "noon": (0.27, (45, 68), (180, 450)),
    "low": (0.20, (28, 45), (180, 450)),
    "evening": (0.12, (14, 26), (120, 250)),
    "dusk": (0.09, (8, 14), (120, 250)),
    "overcast": (0.17, (50, 70), (150, 300)),
    "fog": (0.06, (50, 70), (35, 60)),
    "rain": (0.09, (50, 70), (90, 180)),
}
"""For each kind its share, the sun's elevation in degrees, and the reach of the haze in metres."""


def _fair(rng: np.random.Generator, kind: str, base: Weather) -> Weather:
    blue = rgb(0.25, 0.46, 0.78) * np.float32(rng.uniform(0.85, 1.15))
    cover = float(rng.choice([0.0, 0.3, 0.55]))
    if kind == "evening":
        return replace(
            base,
            cover=cover,
            direct=rgb(0.66, 0.46, 0.26),
            ambient=rgb(0.50, 0.49, 0.55),
            zenith=blue * np.float32(0.85),
            horizon=rgb(0.96, 0.80, 0.60),
            cloud=rgb(0.98, 0.82, 0.70),
        )
    if kind == "dusk":
        return replace(
            base,
            cover=cover,
            ambient=rgb(0.52, 0.49, 0.60),
            zenith=rgb(0.26, 0.28, 0.50),
            horizon=rgb(0.90, 0.60, 0.48),
            cloud=rgb(0.55, 0.42, 0.5),
            night=float(rng.uniform(0.4, 0.75)),
        )
    warm = 0.0 if kind == "noon" else 0.06
    return replace(
        base,
        cover=cover,
        direct=rgb(0.60, 0.56 - warm / 2, 0.48 - warm),
        ambient=rgb(0.54, 0.58, 0.66),
        zenith=blue,
        horizon=rgb(0.74, 0.83, 0.92),
        cloud=rgb(0.96, 0.96, 0.97),
    )


def _grey(rng: np.random.Generator, kind: str, base: Weather) -> Weather:
    grey = float(rng.uniform(0.68, 0.84))
    wet = 1.0 if kind == "rain" else 0.0
    bright = np.float32((0.6 + 0.4 * grey) * (0.88 if wet else 1.0))
    return replace(
        base,
        wet=wet,
        cover=0.0 if kind == "fog" else float(rng.uniform(0.4, 0.9)),
        ambient=rgb(0.84, 0.86, 0.88) * bright,
        zenith=rgb(0.88, 0.93, 1.0) * np.float32(grey),
        horizon=rgb(0.95, 0.97, 1.0) * np.float32(min(1.12 * grey, 0.93)),
        cloud=rgb(0.90, 0.92, 0.95) * np.float32(0.82 * grey),
    )


def sky_colors(view: View, weather: Weather, factor: int) -> Floats:
    """Return the sky for the rows of ``view`` above the horizon, each pixel ``factor`` times.

    Clouds have no sharp edges: the sky is computed coarsely and enlarged.
    """
    rows = min(view.horizon + 1, view.height)
    dx, dy, dz = view.dx[:rows], view.dy[:rows], view.dz[:rows]
    length = np.sqrt(dx * dx + dy * dy + dz * dz)
    height = np.clip(dy / length, 0, 1)
    high = np.clip(height * 1.9, 0, 1)[..., None] ** np.float32(0.7)
    sky: Floats = weather.horizon * (1 - high) + weather.zenith * high
    sx, sy, sz = weather.sun
    if weather.shadows or weather.night > 0:
        near = np.clip((dx * sx + dy * sy + dz * sz) / length, 0, 1)
        glow = (0.35 * near**12 + 0.5 * near**160)[..., None]
        tint = weather.horizon * 0.5 + rgb(0.5, 0.48, 0.42)
        sky = sky + (tint - sky) * np.minimum(glow, 1)
    if weather.cover > 0:
        flat = 1 / (height + 0.14)
        u, v = dx / length * flat, dz / length * flat
        noise = look_up_noise(u + weather.cloud_shift, v + 0.7 * weather.cloud_shift, 26.0)
        thick = 0.8 * noise[..., 2] + 0.3 * noise[..., 1] + 0.12 * noise[..., 0]
        edge = 1.3 - 2.2 * weather.cover
        cover = np.clip((thick - edge) * 0.9, 0, 1) * np.clip(height * 9, 0, 1)
        bright = 1 - 0.10 * np.clip(thick - edge - 0.8, 0, 2)
        sky = sky + (weather.cloud * bright[..., None] - sky) * (0.9 * cover)[..., None]
    if factor == 1:
        return sky
    large = cv2.resize(sky, None, fx=factor, fy=factor, interpolation=cv2.INTER_LINEAR)
    return np.asarray(large, np.float32)
