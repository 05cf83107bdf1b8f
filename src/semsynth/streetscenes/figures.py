"""People, lamps, signs and bins: flat figures that face the camera."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .canvas import Canvas
from .labels import PERSON, POLE, SIGN, UNLABELED
from .scene import Bin, Lamp, Person, Scene, Sign
from .shadows import is_lit
from .weather import Color, rgb

Points = npt.NDArray[np.float64]


class _Flat:
    """A sheet that stands at one place, faces the camera and is drawn on in metres."""

    def __init__(
        self, canvas: Canvas, scene: Scene, place: tuple[float, float], label: int
    ) -> None:
        self.canvas, self.label = canvas, label
        self.shapes: list[Points] = []
        self.colors: list[Color] = []
        self.labels: list[int] = []
        uv, depth = canvas.view.project([(place[0], 0.0, place[1])])
        self.foot, self.depth = uv[0].astype(np.float64), float(depth[0])
        self.scale = canvas.view.focal / max(self.depth, 1e-3)
        w = canvas.weather
        lit = is_lit(scene, place[0], 1.0, place[1])
        self.right, _, toward = canvas.view.toward(w.sun)
        self.front: Color = w.ambient * np.float32(0.92) + w.direct * np.float32(
            lit * (0.15 + 0.75 * max(0.0, toward))
        )
        side = lit * abs(self.right)
        self.bright: Color = self.front + w.direct * np.float32(0.6 * side)
        self.dim: Color = self.front * np.float32(1 - 0.18 * side)

    def add(self, points: npt.ArrayLike, color: Color, light: Color | None = None) -> None:
        """Add a polygon of (right, up) in metres from the foot."""
        self.shapes.append(np.asarray(points, np.float64))
        self.colors.append(color * (self.front if light is None else light))
        self.labels.append(self.label)

    def finish(self) -> None:
        """Fill all polygons in the order in which they were added."""
        uv = self.foot + np.concatenate(self.shapes) * (self.scale, -self.scale)
        w = self.canvas.weather
        clear = np.float32(np.exp(-self.depth / w.haze))
        colors = np.stack(self.colors) * clear + w.horizon * (1 - clear)
        self.canvas.fill_each(uv, [len(s) for s in self.shapes], colors, self.labels)

    def limb(
        self,
        a: tuple[float, float],
        b: tuple[float, float],
        widths: tuple[float, float],
        color: Color,
    ) -> None:
        """Add a limb from ``a`` to ``b``, its two long halves in two lights."""
        (ax, ay), (bx, by) = a, b
        sign = 1.0 if by >= ay else -1.0
        length = max(float(np.hypot(bx - ax, by - ay)), 1e-6) * sign * 2
        x, y = (by - ay) / length, (ax - bx) / length
        w0, w1 = widths
        left, right = (self.bright, self.dim) if self.right < 0 else (self.dim, self.bright)
        self.add([a, (ax - x * w0, ay - y * w0), (bx - x * w1, by - y * w1), b], color, left)
        self.add([a, (ax + x * w0, ay + y * w0), (bx + x * w1, by + y * w1), b], color, right)

    def disc(self, centre: tuple[float, float], radii: tuple[float, float], color: Color) -> None:
        """Add an ellipse."""
        self.add(_ellipse(centre, radii), color)


_ANGLE = np.arange(16) * (2 * np.pi / 16)
_CIRCLE = np.stack([np.cos(_ANGLE), np.sin(_ANGLE)], axis=1)


def _ellipse(centre: tuple[float, float], radii: tuple[float, float]) -> Points:
    points: Points = _CIRCLE * radii + centre
    return points


def draw_person(canvas: Canvas, scene: Scene, person: Person) -> None:
    """Draw somebody: legs, arms, body, head."""
    f = _Flat(canvas, scene, (person.x, person.z), PERSON)
    if f.depth < 1.8:
        return
    h = person.tall
    hip, shoulder, head = 0.50 * h, 0.82 * h, 0.925 * h
    swing = person.stride if person.side else person.stride * 0.25
    shoes = rgb(0.12, 0.11, 0.11)
    for k, tone in ((-1, 0.82), (1, 1.0)):
        apart = 0.0 if person.side else 0.045 * h * k
        foot = (apart + np.sin(swing * k) * hip, 0.02 * h)
        knee = (apart + np.sin(swing * k) * hip * 0.42 + 0.03 * h * person.side, hip * 0.5)
        trousers = person.skin if person.skirt else person.legs
        f.limb((apart * 0.9, hip), knee, (0.105 * h, 0.085 * h), trousers * np.float32(tone))
        f.limb(knee, foot, (0.085 * h, 0.062 * h), trousers * np.float32(tone))
        toe = 0.05 * h * (person.side or 0.4 * k)
        f.disc((foot[0] + toe * 0.5, 0.02 * h), (0.055 * h, 0.024 * h), shoes)
    _draw_arm(f, person, -1, shoulder)
    body = 0.15 * h if person.side else 0.21 * h
    if person.skirt:
        f.limb((0, hip * 1.08), (0, hip * 0.55), (body * 0.8, body * 1.25), person.legs)
    f.limb((0, shoulder + 0.015 * h), (0, hip * 0.92), (body, body * 0.88), person.top)
    f.disc((0, shoulder), (body / 2, 0.035 * h), person.top)
    if person.bag and (person.back or person.side):
        at = -0.09 * h * person.side
        f.limb((at, shoulder), (at, hip * 1.15), (0.11 * h, 0.13 * h), rgb(0.32, 0.16, 0.14))
    _draw_arm(f, person, 1, shoulder)
    f.limb((0, shoulder + 0.05 * h), (0, shoulder), (0.06 * h, 0.07 * h), person.skin)
    f.disc((0, head), (0.058 * h, 0.073 * h), person.hair if person.back else person.skin)
    if not person.back:
        top = _ellipse((-0.014 * h * person.side, head + 0.028 * h), (0.061 * h, 0.055 * h))
        f.add(top[top[:, 1] > head + 0.012 * h], person.hair)
    f.finish()


def _draw_arm(f: _Flat, person: Person, k: int, shoulder: float) -> None:
    h = person.tall
    start = (0.0 if person.side else 0.10 * h * k, shoulder - 0.02 * h)
    swing = -person.stride * k * 0.9 if person.side else 0.12 * k
    elbow = (start[0] + np.sin(swing) * 0.17 * h, start[1] - 0.17 * h)
    bend = swing + 0.25 * person.side
    hand = (elbow[0] + np.sin(bend) * 0.15 * h, elbow[1] - 0.15 * h)
    tone = np.float32(0.80 if k < 0 else 0.92)
    f.limb(start, elbow, (0.072 * h, 0.062 * h), person.top * tone)
    f.limb(elbow, hand, (0.062 * h, 0.05 * h), person.top * tone)
    f.disc(hand, (0.026 * h, 0.03 * h), person.skin)


def draw_lamp(canvas: Canvas, scene: Scene, lamp: Lamp) -> None:
    """Draw a street lamp with its arm over the road."""
    f = _Flat(canvas, scene, (lamp.x, lamp.z), POLE)
    if f.depth < 1.2:
        return
    t, h = lamp.thick, lamp.tall
    f.limb((0, h), (0, 0), (t * 0.75, t), lamp.color)
    f.limb((0, 0.9), (0, 0), (t * 1.5, t * 1.6), lamp.color)
    f.finish()
    reach = -np.sign(lamp.x) * lamp.arm
    (a, b), _ = canvas.view.project([(lamp.x, h, lamp.z), (lamp.x + reach, h + 0.25, lamp.z)])
    thick = max(t * 0.7 * f.scale, 1.0)
    w = canvas.weather
    color = w.through_haze(lamp.color * f.front, f.depth)
    up = np.array([0.0, thick / 2])
    canvas.fill([a + up, a - up, b - up, b + up], color, POLE)
    glow = rgb(1.0, 0.93, 0.72) if w.night > 0 else w.through_haze(lamp.color * 1.2, f.depth)
    ends = b + np.array([(-0.45, -0.06), (0.25, -0.10), (0.3, 0.08), (-0.4, 0.1)]) * f.scale
    canvas.fill(ends, glow, POLE)


def draw_bin(canvas: Canvas, scene: Scene, item: Bin) -> None:
    """Draw a litter bin, which has no label."""
    f = _Flat(canvas, scene, (item.x, item.z), UNLABELED)
    if f.depth < 1.5:
        return
    f.limb((0, 0.95), (0, 0), (0.58, 0.48), item.color)
    f.limb((0, 1.06), (0, 0.95), (0.5, 0.62), item.color * np.float32(0.6))
    f.finish()


RED, BLUE, WHITE = rgb(0.80, 0.07, 0.09), rgb(0.07, 0.24, 0.66), rgb(0.93, 0.93, 0.92)
YELLOW, BLACK = rgb(0.96, 0.76, 0.08), rgb(0.08, 0.08, 0.09)
SIGN_KINDS = 7


def draw_sign(canvas: Canvas, scene: Scene, sign: Sign) -> None:
    """Draw a traffic sign on its pole."""
    f = _Flat(canvas, scene, (sign.x, sign.z), POLE)
    if f.depth < 1.2:
        return
    f.limb((0, sign.tall + sign.size / 2), (0, 0), (0.17, 0.17), rgb(0.55, 0.56, 0.57))
    f.label = SIGN
    _draw_board(f, sign.kind, (0.0, sign.tall), sign.size / 2)
    f.finish()


def _draw_board(f: _Flat, kind: int, at: tuple[float, float], r: float) -> None:
    """Draw a board of radius ``r``; white boards never are, so that they differ from houses."""
    x, y = at

    def shape(points: list[tuple[float, float]], color: Color) -> None:
        f.add(np.array(at) + np.array(points) * r, color)

    if kind == 0:  # no entry
        f.disc(at, (r, r), RED)
        shape([(-0.66, -0.18), (0.66, -0.18), (0.66, 0.18), (-0.66, 0.18)], WHITE)
    elif kind == 1:  # speed limit
        f.disc(at, (r, r), RED)
        f.disc(at, (0.66 * r, 0.66 * r), WHITE)
        shape([(-0.34, -0.3), (-0.08, -0.3), (-0.08, 0.3), (-0.34, 0.3)], BLACK)
        shape([(0.08, -0.3), (0.38, -0.3), (0.38, 0.3), (0.08, 0.3)], BLACK)
    elif kind == 2:  # mandatory direction
        f.disc(at, (r, r), BLUE)
        shape(
            [
                (-0.13, -0.6),
                (0.13, -0.6),
                (0.13, 0.1),
                (0.45, 0.1),
                (0, 0.66),
                (-0.45, 0.1),
                (-0.13, 0.1),
            ],
            WHITE,
        )
    elif kind == 3:  # give way
        shape([(-1.1, 0.85), (1.1, 0.85), (0, -1.0)], RED)
        shape([(-0.55, 0.52), (0.55, 0.52), (0, -0.38)], WHITE)
    elif kind == 4:  # priority road
        shape([(-1.1, 0), (0, 1.1), (1.1, 0), (0, -1.1)], WHITE)
        shape([(-0.82, 0), (0, 0.82), (0.82, 0), (0, -0.82)], YELLOW)
    elif kind == 5:  # pedestrian crossing
        shape([(-0.95, -0.95), (0.95, -0.95), (0.95, 0.95), (-0.95, 0.95)], BLUE)
        shape([(-0.6, -0.5), (0.6, -0.5), (0, 0.62)], WHITE)
        f.disc((x, y + 0.05 * r), (0.16 * r, 0.16 * r), BLACK)
    else:  # stop
        angle = np.pi / 8 + np.arange(8) * np.pi / 4
        f.add(np.array(at) + 1.05 * r * np.stack([np.cos(angle), np.sin(angle)], 1), RED)
        shape([(-0.7, -0.2), (0.7, -0.2), (0.7, 0.2), (-0.7, 0.2)], WHITE)
