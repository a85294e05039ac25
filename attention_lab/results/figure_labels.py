"""Names beside points and at the ends of lines: near what they name, and not on each other."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from attention_lab.results.figure_files import PAPER, colour

if TYPE_CHECKING:
  from matplotlib.axes import Axes

NAME = 30  # letters of a name in a figure, from which on it is cut in the middle
RINGS = (7.0, 14.0, 24.0, 36.0, 50.0, 66.0, 84.0, 104.0)  # distances of a name from its point, points
BACKGROUND = {"facecolor": PAPER, "edgecolor": "none", "pad": 0.5}  # of a name within a plot

Point = tuple[float, float, float, float]  # x, low, value, high
Extent = tuple[float, float, float, float]  # left, bottom, right, top, in pixels


@dataclasses.dataclass(frozen=True)
class Line:
  """A named series of points; `number` gives its colour and marker, `tags` a name for each of its points.

  Points with `hollow` True have an empty marker; without `joined` the points are not connected.
  """

  name: str
  points: Sequence[Point]
  number: int
  tags: Sequence[str] = ()
  hollow: Sequence[bool] = ()
  joined: bool = True


def shorten(name: str, length: int = NAME) -> str:
  """The name in at most `length` letters, cut in the middle."""
  half = (length - 1) // 2
  return name if len(name) <= length else f"{name[: length - 1 - half]}…{name[-half:]}"


def name_ends(plots: Sequence[tuple[Any, Sequence[tuple[str, float, float, str]]]], room: float = 1.06) -> None:
  """Names (text, x, y, colour) in a column at the right of each plot, in the order of the ends that they are tied to.

  `room` is where the column begins, in widths of a plot.
  """
  columns = []
  for axes, ends in plots:
    (low, high), labels = sorted(axes.get_ylim()), []
    for text, x, y, paint in sorted(ends, key=lambda end: axes.transData.transform((1.0, end[2]))[1]):
      end = min(max(y, low), high)
      arrow = {"arrowstyle": "-", "color": paint, "linewidth": 0.8, "alpha": 0.6, "shrinkA": 2, "shrinkB": 4}
      arrow["relpos"] = (0.0, 0.5)  # from the left end of the name
      label = axes.annotate(
        text, (x, end), (room, end), textcoords=axes.get_yaxis_transform(), color=paint, va="center",
        annotation_clip=False, arrowprops=arrow,
      )  # fmt: skip
      labels.append(label)
    columns.append((axes, labels))
  for axes, labels in columns:
    renderer = settled(axes.figure)
    tall = 1.1 * max((label.get_window_extent(renderer).height for label in labels), default=0.0)
    wanted = [axes.transData.transform((1.0, label.xy[1]))[1] for label in labels]
    frame = axes.get_window_extent(renderer)
    heights = spread(wanted, tall, frame.y0 + tall / 2, frame.y1 - tall / 2)
    for label, height in zip(labels, heights, strict=True):
      label.set_position((room, axes.transData.inverted().transform((frame.x1, height))[1]))


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
  """Ascending positions nearest to the wanted ascending ones, `gap` or more apart, in [low, high] where they fit."""
  from scipy import optimize

  if not wanted:
    return []
  steps = gap * np.arange(len(wanted))
  flat = optimize.isotonic_regression(np.asarray(wanted) - steps).x
  return (np.clip(flat, low, max(low, high - steps[-1])) + steps).tolist()


def name_points(axes: "Axes", lines: Sequence[Line], stairs: Sequence[tuple[float, float]] = ()) -> None:
  """The tags of points, each at the nearest place that is free of other names, markers and intervals."""
  tagged = [(tag, point, line) for line in lines for tag, point in zip(line.tags, line.points, strict=False) if tag]
  if not tagged:
    return
  renderer = settled(axes.figure)
  scale, frame, at = axes.figure.dpi / 72, axes.get_window_extent(renderer), axes.transData.transform
  taken = [box for line in lines for point in line.points for box in _occupied(at, point, scale)]
  paths = [[at((point[0], point[2])) for point in line.points] for line in lines if line.joined]
  drawn = _samples([*paths, [at(corner) for corner in stairs]])
  places = np.array([at((point[0], point[2])) for _, point, _ in tagged])
  crowds = [float((1 / (1 + np.hypot(*(places - here).T))).sum()) for here in places]
  for index in sorted(range(len(tagged)), key=lambda index: -crowds[index]):
    (tag, point, line), (x, y) = tagged[index], places[index]
    paint = colour(line.number)
    arrow = {"arrowstyle": "-", "color": paint, "linewidth": 0.7, "alpha": 0.7, "shrinkA": 0, "shrinkB": 3}
    label = axes.annotate(
      shorten(tag), (point[0], point[2]), (0, 0), textcoords="offset points", color=paint, fontsize=8,
      ha="center", va="center", zorder=5, in_layout=False, arrowprops=arrow, bbox=BACKGROUND,
    )  # fmt: skip
    size = label.get_window_extent(renderer)
    offsets = np.array(list(_offsets(size.width, size.height, scale)))
    centres = offsets[:, :2] + (x, y)
    half = np.array([size.width, size.height]) / 2
    boxes = np.concatenate([centres - half, centres + half], axis=1)
    best = int(np.argmin(offsets[:, 2] + _prices(boxes, frame.extents, np.array(taken), drawn, 1.5 * scale)))
    label.set_position(tuple(offsets[best, :2] / scale))
    if offsets[best, 2] == RINGS[0] and label.arrow_patch:
      label.arrow_patch.set_visible(False)
    taken.append(tuple(boxes[best]))


def settled(figure: Any) -> Any:
  """The renderer of a figure whose layout is final; names that are added later do not move it."""
  from matplotlib.layout_engine import ConstrainedLayoutEngine

  if isinstance(figure.get_layout_engine(), ConstrainedLayoutEngine):
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
  return figure.canvas.get_renderer()


def _occupied(at: Callable[..., Any], point: Point, scale: float) -> list[Extent]:
  """What a marker and its interval cover, in pixels."""
  (x, y), (_, low), (_, high) = at((point[0], point[2])), at((point[0], point[1])), at((point[0], point[3]))
  r = 4.5 * scale
  return [(x - r, y - r, x + r, y + r), (x - 1, min(low, high), x + 1, max(low, high))]


def _samples(paths: Sequence[Sequence[Any]]) -> np.ndarray:
  """Points along the straight pieces of paths, `pieces 25 2`."""
  pieces = [pair for path in paths for pair in itertools.pairwise(path)]
  ends = np.array(pieces, np.float64).reshape(-1, 2, 2)
  return ends[:, :1] + np.linspace(0, 1, 25)[None, :, None] * (ends[:, 1:] - ends[:, :1])


def _offsets(width: float, height: float, scale: float) -> Iterator[tuple[float, float, float]]:
  """Offsets (right, up, distance) of the centre of a name around its point, ring after ring."""
  for ring in RINGS:
    for angle in range(0, 360, 30 if ring > RINGS[0] else 45):
      right, up = math.cos(math.radians(angle)), math.sin(math.radians(angle))
      side = 0.0 if abs(right) < 0.2 else math.copysign(width / 2, right)
      yield ring * scale * right + side, (ring * scale + height / 2 * abs(up)) * up, ring


def _prices(boxes: np.ndarray, frame: Any, taken: np.ndarray, drawn: np.ndarray, pad: float) -> np.ndarray:
  """What each place of a name costs beside its distance: leaving the plot, covering a name or a marker, a line."""
  low, high = boxes[:, None, :2], boxes[:, None, 2:]
  outside = (boxes[:, :2] < frame[:2]).any(1) | (boxes[:, 2:] > np.add(frame[2:], (4, 0))).any(1)
  covered = ((low < taken[None, :, 2:] + pad) & (taken[None, :, :2] - pad < high)).all(-1).sum(1)
  inside = ((drawn[None] >= low[:, None]) & (drawn[None] <= high[:, None])).all(-1).any(-1).sum(-1)
  return 1000 * covered + 3000 * outside + 20 * inside
