"""Time of day and weather: where the light comes from, its colours, the haze, the sky."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from .camera import Floats, View
from .textures import sample_noise

Color = npt.NDArray[np.float32]


def rgb(red: float, green: float, blue: float) -> Color:
    """Return a colour as float32; 1 is the brightest that the picture shows."""
    return np.array([red, green, blue], np.float32)


@dataclass(frozen=True)
class Weather:
    """The light of one scene. Colours are shares of 1 for red, green and blue."""

    sun: tuple[float, float, float]
    """Unit vector towards the sun (or towards the brightest part of the sky)."""
    direct: Color
    ambient: Color
    zenith: Color
    horizon: Color
    cloud: Color
    cover: float
    """Share of the sky behind clouds, 0 to 1."""
    haze: float
    """Metres after which 63 per cent of the light is the horizon's."""
    wet: float
    """How much the road mirrors, 0 to 1."""
    night: float
    """How many lamps and windows are lit, 0 to 1."""
    cloud_shift: float

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
    kind = rng.choice(
        ["noon", "low", "evening", "dusk", "overcast", "fog", "rain"],
        p=[0.27, 0.2, 0.12, 0.09, 0.17, 0.06, 0.09],
    )
    azimuth = rng.uniform(-np.pi, np.pi)
    elevation = np.radians(
        rng.uniform(
            *{"noon": (45, 68), "low": (28, 45), "evening": (14, 26), "dusk": (8, 14)}.get(
                str(kind), (50, 70)
            )
        )
    )
    sun = (
        float(np.cos(elevation) * np.sin(azimuth)),
        float(np.sin(elevation)),
        float(np.cos(elevation) * np.cos(azimuth)),
    )
    none = rgb(0, 0, 0)
    blue = rgb(0.25, 0.46, 0.78) * np.float32(rng.uniform(0.85, 1.15))
    cover = float(rng.choice([0.0, 0.3, 0.55]))
    haze, wet, night = float(rng.uniform(180, 450)), 0.0, 0.0
    if kind in ("noon", "low"):
        warm = 0.0 if kind == "noon" else 0.06
        direct, ambient = rgb(0.60, 0.56 - warm / 2, 0.48 - warm), rgb(0.52, 0.56, 0.64)
        zenith, horizon, cloud = blue, rgb(0.74, 0.83, 0.92), rgb(0.96, 0.96, 0.97)
    elif kind == "evening":
        direct, ambient = rgb(0.66, 0.46, 0.26), rgb(0.50, 0.49, 0.55)
        zenith, horizon, cloud = blue * 0.85, rgb(0.96, 0.80, 0.60), rgb(0.98, 0.82, 0.70)
        haze = float(rng.uniform(120, 250))
    elif kind == "dusk":
        direct, ambient, night = none, rgb(0.48, 0.45, 0.56), float(rng.uniform(0.4, 0.75))
        zenith, horizon, cloud = rgb(0.26, 0.28, 0.50), rgb(0.90, 0.60, 0.48), rgb(0.55, 0.42, 0.5)
        haze = float(rng.uniform(120, 250))
    else:
        grey = float(rng.uniform(0.68, 0.84))
        direct, ambient = none, rgb(0.84, 0.86, 0.88) * np.float32(0.6 + 0.4 * grey)
        zenith, horizon = rgb(0.88, 0.93, 1.0) * grey, rgb(0.95, 0.97, 1.0) * min(1.12 * grey, 0.93)
        cloud, cover = rgb(0.90, 0.92, 0.95) * grey * 0.82, float(rng.uniform(0.4, 0.9))
        haze = float(rng.uniform(150, 300))
        if kind == "fog":
            haze, cover = float(rng.uniform(35, 60)), 0.0
        if kind == "rain":
            ambient, wet, haze = ambient * np.float32(0.86), 1.0, float(rng.uniform(90, 180))
    return Weather(
        sun,
        direct,
        ambient,
        zenith,
        horizon,
        cloud,
        cover,
        haze,
        wet,
        night,
        float(rng.uniform(0, 500)),
    )


def paint_sky(view: View, weather: Weather, finer: int) -> Floats:
    """Return the sky for the rows of ``view`` above the horizon, each pixel ``finer`` times.

    Clouds have no sharp edges: the sky is painted coarsely and enlarged.
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
        noise = sample_noise(u + weather.cloud_shift, v + 0.7 * weather.cloud_shift, 26.0)
        thick = 0.8 * noise[..., 2] + 0.3 * noise[..., 1] + 0.12 * noise[..., 0]
        edge = 1.3 - 2.2 * weather.cover
        cover = np.clip((thick - edge) * 0.9, 0, 1) * np.clip(height * 9, 0, 1)
        bright = 1 - 0.10 * np.clip(thick - edge - 0.8, 0, 2)
        sky = sky + (weather.cloud * bright[..., None] - sky) * (0.9 * cover)[..., None]
    if finer == 1:
        return sky
    return cv2.resize(sky, None, fx=finer, fy=finer, interpolation=cv2.INTER_LINEAR)
