"""The pictures of a table: learning curves, paired differences, quality against cost, and the small bar in a cell."""

import dataclasses
import re
from collections.abc import Mapping, Sequence

from attention_lab.compare import numerals, svg, verdict
from attention_lab.compare.tables import Entry, Table

Numbers = Mapping[str, int]  # variant -> its number, which gives colour, dash and mark on the whole page
WIDE = 7.3  # pixels of a letter in a label
CLIP = 0.12  # the part of training whose worse scores may leave the plot


def curves(table: Table, numbers: Numbers) -> str:
  """Validation score against step: mean over seeds, band from the lowest to the highest seed; empty without curves."""
  drawn = {entry.attention: curve for entry in table.scored if len(curve := _curve(entry)) > 1}
  if not drawn:
    return ""
  last = max(curve[-1][0] for curve in drawn.values())
  settled = [value for curve in drawn.values() for step, *band in curve if step >= CLIP * last for value in band]
  right = 26 + WIDE * max(len(svg.shorten(name)) for name in drawn)
  frame = svg.Frame(svg.Scale(0.0, last), _with_references(settled, table), right=right)
  ends = {name: (curve[-1][2], numbers[name]) for name, curve in drawn.items()}
  ends |= {name: (value, None) for name, value in _inside(frame, table).items()}
  lines = [_band(frame, curve, numbers[name]) for name, curve in drawn.items()]
  clip = f'<clipPath id="{_identifier(table)}">{_area(frame)}</clipPath>'
  inside = f'<g clip-path="url(#{_identifier(table)})">{"".join(lines)}</g>'
  digits = _tick_digits(frame.y)
  grid = svg.axes(frame, "optimizer step", numerals.count, lambda value: numerals.score(value, digits))
  parts = [clip, grid, _reference_lines(frame, table), inside, *svg.end_labels(frame, ends)]
  return svg.figure(frame, parts, f"Validation {table.primary} against step, {table.task}")


def differences(table: Table, numbers: Numbers) -> str:
  """How far each row trails the best: thick the 95 % interval, thin the one corrected for all pairs of rows."""
  others = [entry for entry in table.scored if entry.difference]
  if not others:
    return ""
  plain = [edge for one in others for edge in (one.difference.interval.low, one.difference.interval.high)]
  reach = 0.5 * (max(*plain, 0) - min(*plain, 0))
  wide = [max(min(edge, max(plain) + reach), min(plain) - reach) for one in others for edge in _adjusted(one)]
  rows = [table.scored[0], *others]
  left = 24 + WIDE * max(len(svg.shorten(entry.attention)) for entry in rows)
  height = 60.0 + 34 * len(rows)
  frame = svg.Frame(
    svg.padded([*plain, *wide, 0.0]), svg.Scale(len(rows) - 0.5, -0.5), height=height, left=left, top=8.0, right=92.0
  )
  digits = _tick_digits(frame.x)
  zero = frame.column(0.0)
  parts = [svg.line((zero, frame.top), (zero, frame.height - frame.bottom), "zero")]
  parts += [_difference(frame, entry, rank, numbers[entry.attention], table) for rank, entry in enumerate(rows)]
  title = f"{numerals.metric(table.primary)} behind the best"
  parts.append(svg.axes(frame, title, lambda value: numerals.score(value, digits)))
  return svg.figure(frame, parts, f"Paired differences to the best row, {table.task}")


def quality(table: Table, numbers: Numbers, cost: str) -> str:
  """Test score with its interval against a cost: `flops_per_token` or `time_ratio` (both on a log axis)."""
  costs = {entry.attention: entry.time_ratio if cost == "time_ratio" else entry.cost(cost) for entry in table.scored}
  points = [(entry, costs[entry.attention]) for entry in table.scored if costs[entry.attention]]
  if len(points) < 2:
    return ""
  edges = [edge for entry, _ in points for edge in _clipped(entry, table)]
  frame = svg.Frame(svg.padded([x for _, x in points], 0.16, log=True), _with_references(edges, table))
  beside = max(map(len, _inside(frame, table)), default=5)
  frame = dataclasses.replace(frame, right=26 + WIDE * beside)
  digits = _tick_digits(frame.y)
  titles = {"time_ratio": f"step time, {table.baseline} = 1 (log)", "flops_per_token": "training FLOPs per token (log)"}
  shown = numerals.ratio if cost == "time_ratio" else numerals.thousands
  parts = [
    svg.axes(frame, titles[cost], shown, lambda value: numerals.score(value, digits)),
    _reference_lines(frame, table),
  ]
  parts += svg.end_labels(frame, {name: (value, None) for name, value in _inside(frame, table).items()})
  taken = []
  for entry, x in points:
    low, high = (frame.at(x, edge) for edge in _clipped(entry, table))
    parts.append(svg.line(low, high, "whisker", numbers[entry.attention]))
    taken += [(low[0] - 6, high[1] - 6, low[0] + 6, low[1] + 6)]
  for entry, x in points:
    at = frame.at(x, entry.interval.mean)
    parts += [svg.marker(at, numbers[entry.attention], 5.0), _point_label(frame, at, entry, numbers, taken)]
  return svg.figure(frame, parts, f"{table.primary} against {cost}, {table.task}")


def bar(entry: Entry, table: Table, number: int) -> str:
  """The interval of a row to the scale that its column shares; small strokes are the seeds."""
  low, high = scale(table)
  frame = svg.Frame(svg.Scale(low, high), svg.Scale(0.0, 1.0), 170.0, 20.0, left=5.0, right=5.0, top=0.0, bottom=0.0)
  edges = [min(max(edge, low), high) for edge in (entry.interval.low, entry.interval.high)]
  parts = [svg.line(frame.at(low, 0.5), frame.at(high, 0.5), "rule")]
  inside = [value for value in table.references.values() if low <= value <= high]
  parts += [svg.line(frame.at(value, 0.0), frame.at(value, 1.0), "reference") for value in inside]
  parts += [svg.line(frame.at(value, 0.22), frame.at(value, 0.78), "seed", number) for value in entry.scores.values()]
  if entry.interval.half is not None:
    parts.append(svg.line(frame.at(edges[0], 0.5), frame.at(edges[1], 0.5), "interval", number))
  parts.append(svg.marker(frame.at(entry.interval.mean, 0.5), number))
  return svg.figure(frame, parts, f"interval from {entry.interval.low:.3g} to {entry.interval.high:.3g}")


def swatch(number: int) -> str:
  """The mark of a variant before its name."""
  box = '<svg viewBox="0 0 14 14" class="swatch" aria-hidden="true">'
  return f"{box}{svg.marker((7.0, 7.0), number, 4.5)}</svg>"


def scale(table: Table) -> tuple[float, float]:
  """The ends of the scale of a table's bars: its intervals, and the references that do not stretch it by half."""
  edges = [edge for entry in table.scored for edge in _clipped(entry, table)]
  chosen = _with_references(edges, table, 0.02)
  bounded = _bounded(table)
  return (max(chosen.low, 0.0), min(chosen.high, 1.0)) if bounded else (chosen.low, chosen.high)


def _curve(entry: Entry) -> list[tuple[float, float, float, float]]:
  """(step, lowest, mean, highest) at the steps that all seeds have."""
  seeds = [dict(row.get("curve") or []) for row in entry.done]
  steps = sorted(set.intersection(*(set(seed) for seed in seeds))) if seeds else []
  values = [(step, [seed[step] for seed in seeds]) for step in steps]
  return [(float(step), min(v), sum(v) / len(v), max(v)) for step, v in values if None not in v]


def _band(frame: svg.Frame, curve: Sequence[tuple[float, ...]], number: int) -> str:
  lower = [frame.at(step, low) for step, low, _, _ in curve]
  upper = [frame.at(step, high) for step, _, _, high in reversed(curve)]
  middle = [frame.at(step, mean) for step, _, mean, _ in curve]
  every = max(1, len(middle) // 8)
  marks = "".join(svg.marker(at, number, 3.2) for at in middle[::-1][::every])
  return svg.path(lower + upper, "band", number, closed=True) + svg.path(middle, "curve", number) + marks


def _difference(frame: svg.Frame, entry: Entry, rank: int, number: int, table: Table) -> str:
  at = frame.row(float(rank))
  parts = [svg.text((frame.left - 12, at + 4), entry.attention, "name end", number)]
  parts.append(svg.text((frame.width - frame.right + 12, at + 4), verdict.standing(entry, table), "tick"))
  if not entry.difference:
    return "".join([*parts, svg.marker((frame.column(0.0), at), number, 5.0)])
  edge, gap = frame.width - frame.right, entry.difference.interval
  for kind, ends in (("whisker", _adjusted(entry)), ("interval", (gap.low, gap.high))):
    low, high = (min(max(frame.column(end), frame.left), edge) for end in ends)
    parts.append(svg.line((low, at), (high, at), kind, number))
  return "".join([*parts, svg.marker((frame.column(gap.mean), at), number, 5.0)])


def _adjusted(entry: Entry) -> tuple[float, float]:
  half = entry.difference.adjusted or 0.0
  return entry.difference.interval.mean - half, entry.difference.interval.mean + half


def _point_label(frame: svg.Frame, at: svg.Point, entry: Entry, numbers: Numbers, taken: list) -> str:
  width = WIDE * len(svg.shorten(entry.attention))
  sides = [(10, 4), (-10 - width, 4), (10, -10), (10, 18), (-10 - width, -10), (-10 - width, 18), (10, -24), (10, 32)]
  for dx, dy in sides:
    box = (at[0] + dx, at[1] + dy - 11, at[0] + dx + width, at[1] + dy + 3)
    inside = box[0] > frame.left and box[2] < frame.width and box[1] > 0 and box[3] < frame.height - frame.bottom
    if inside and not any(_overlap(box, other) for other in taken):
      break
  else:
    box = (at[0] + 10, at[1] - 7, at[0] + 10 + width, at[1] + 7)
  taken.append(box)
  left = box[0] < at[0]
  return svg.text(
    (box[2] if left else box[0], box[3] - 3), entry.attention, "name end" if left else "name", numbers[entry.attention]
  )


def _overlap(one: Sequence[float], other: Sequence[float]) -> bool:
  return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _reference_lines(frame: svg.Frame, table: Table) -> str:
  rows = [frame.row(value) for value in _inside(frame, table).values()]
  return "".join(svg.line((frame.left, row), (frame.width - frame.right, row), "reference") for row in rows)


def _inside(frame: svg.Frame, table: Table) -> dict[str, float]:
  return {name: value for name, value in table.references.items() if frame.y.low <= value <= frame.y.high}


def _with_references(values: Sequence[float], table: Table, share: float = 0.06) -> svg.Scale:
  low, high = min(values), max(values)
  room = 0.5 * (high - low)
  near = [value for value in table.references.values() if low - room <= value <= high + room]
  return svg.padded([low, high, *near], share)


def _clipped(entry: Entry, table: Table) -> tuple[float, float]:
  low, high = entry.interval.low, entry.interval.high
  return (max(low, 0.0), min(high, 1.0)) if _bounded(table) else (low, high)


def _bounded(table: Table) -> bool:
  scores = [score for entry in table.scored for score in entry.scores.values()]
  return table.higher_is_better and all(0 <= score <= 1 for score in scores)


def _tick_digits(scale_: svg.Scale) -> int:
  ticks = scale_.ticks()
  step = ticks[1] - ticks[0] if len(ticks) > 1 else 1.0
  return next((digits for digits in range(5) if abs(round(step, digits) - step) < 1e-9), 5)


def _area(frame: svg.Frame) -> str:
  box = f'width="{frame.width - frame.left - frame.right + 8}" height="{frame.height - frame.top - frame.bottom}"'
  return f'<rect x="{frame.left}" y="{frame.top}" {box}/>'


def _identifier(table: Table) -> str:
  return re.sub(r"[^A-Za-z0-9]+", "-", f"clip-{table.task}-{table.label}")
