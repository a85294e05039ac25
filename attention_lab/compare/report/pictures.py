"""The figures of a comparison: standings, learning curves, quality against cost and range, other lengths, all tasks."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from attention_lab.compare.report import columns, families, lengths, locality, pareto, verdict
from attention_lab.compare.report.tables import Entry, Table
from attention_lab.results import figure_labels, figures, formatting, pages, statistics
from attention_lab.results.figure_labels import Line, Point
from attention_lab.results.figures import Axis, Rank

if TYPE_CHECKING:
  from matplotlib.figure import Figure

CLIP = 0.12  # the share of training whose worse scores may leave the plot
FOLDER = "figures"
NAMED = 9  # rows of a plot of points, beyond which only those on the front bear their names
STANDINGS = (
  "Left: mean over seeds, 95 % interval, and each seed as a stroke. Right: paired by seed, thick 95 %, thin corrected "
  "for all pairs of rows: a thin line that touches zero is a tie."
)
FRONT = (
  "Staircase and filled marks: no row costs less and scores better. Hollow: some row does. Bar: 95 % interval of the "
  "test score; costs have none."
)
LOCALITY = (
  "Test score with its 95 % interval; the receptive field is how many positions the output at one position can depend "
  "on through all layers."
)

Numbers = Mapping[str, int]  # row -> its number, which gives colour and marker on the whole page


def standings(table: Table, numbers: Numbers) -> pages.Picture | None:
  """Scores in order, and how far each row is behind the best; None without a score."""
  if not table.scored:
    return None
  compared = any(entry.difference for entry in table.scored)
  low, high = _limits(table, _edges(table.scored, table), 0.04)
  ranks = [_rank(entry, table, numbers[entry.attention]) for entry in table.scored]
  ranks += [Rank(name, value) for name, value in table.references.items() if low <= value <= high]
  ranks.sort(key=lambda rank: rank.value, reverse=table.higher_is_better)
  metric = formatting.metric(table.primary)
  gap = Axis(f"{metric} behind the best", _gap_limits(table)) if compared else None
  drawn = figures.ranking(ranks, Axis(f"test {metric}", (low, high)), gap)
  caption = STANDINGS if compared else STANDINGS.partition(" Right")[0]
  return _picture(table, "Standings", caption, verdict.plain(table).replace("`", ""), drawn)


def learning(table: Table, numbers: Numbers) -> pages.Picture | None:
  """Validation score against step, a line for each row that has a curve; None without any."""
  lines = {entry.attention: curve(entry) for entry in table.scored}
  lines = {name: points for name, points in lines.items() if len(points) > 1}
  if not lines:
    return None
  last = max(points[-1][0] for points in lines.values())
  known = [(step, value) for entry in table.scored for step, values in _curve_values(entry) for value in values]
  finite = [(step, value) for step, value in known if value is not None]
  settled = [value for step, value in finite if step >= CLIP * last] or [value for _, value in finite]
  metric = formatting.metric(table.primary)
  axes = (
    Axis("optimizer step", (0.0, last * 1.02), text=formatting.count),
    Axis(f"validation {metric}", _limits(table, settled)),
  )
  band = "Validation score, mean over seeds; band: 95 % interval of the mean."
  if all(len(entry.done) < 2 for entry in table.scored):
    band = "Validation score of the one seed."
  return _series(table, numbers, "Learning", band, lines, *axes)


def curve(entry: Entry) -> list[Point]:
  """(step, low, mean, high) at the steps that all seeds of a row have; low and high are the mean of a single seed."""
  points = []
  for step, values in _curve_values(entry):
    finite = [value for value in values if value is not None]
    if len(finite) == len(values):
      mean = statistics.interval(finite)
      points.append((step, mean.low, mean.mean, mean.high))
  return points


def at_lengths(table: Table, numbers: Numbers) -> pages.Picture | None:
  """The score against length, a line for each row; None where no row has two lengths."""
  lines = {
    entry.attention: [(float(length), mean.low, mean.mean, mean.high) for length, mean in lengths.scores(entry).items()]
    for entry in table.scored
  }
  lines = {name: points for name, points in lines.items() if len(points) > 1}
  if not lines:
    return None
  ticks = sorted({point[0] for points in lines.values() for point in points})
  values = [value for points in lines.values() for point in _bounded(points, table) for value in point[1:]]
  x = Axis("length (log)", figures.padded(ticks, 0.02, log=True), True, ticks, formatting.count)
  caption = "Test score at each length, mean over seeds; band: 95 % interval of the mean."
  return _series(table, numbers, "Score against length", caption, lines, x, Axis("test score", _limits(table, values)))


def fronts(table: Table, numbers: Numbers) -> list[pages.Picture]:
  """Quality against each cost: a small plot for each family where rows come in families, else the rows by name."""
  groups = _groups([entry.attention for entry in table.scored])
  costs = pareto.fronts(table)
  if not costs:
    return []
  if 2 * len(groups) <= len(table.scored):
    return [_family_front(front, table, numbers, groups) for front in costs]
  y = Axis(_score_title(table), _limits(table, _edges(table.scored, table), 0.1))
  plots = [(_cost_axis(front, table), _points(front, table, numbers), _corners(front)) for front in costs]
  many = max(len(front.points) for front in costs) > NAMED
  caption = (
    f"{FRONT} Names: the rows on the front; the others by the colours and markers of the table." if many else FRONT
  )
  alt = f"{formatting.metric(table.primary)} against {formatting.joined(front.axis.label for front in costs)}"
  return [_picture(table, "Quality against cost", caption, alt, figures.scatter(plots, y))]


def by_range(table: Table, numbers: Numbers) -> pages.Picture | None:
  """Score against receptive field; None where the table has fewer than three of them."""
  probe = locality.probe(table)
  if not probe:
    return None
  fields = {entry.attention: float(field) for field, entry in probe.fields}
  ticks = _apart(sorted(set(fields.values())))
  entries = {entry.attention: entry for _, entry in probe.fields}
  lines = []
  for name, members in _groups(list(fields)).items():
    inside = sorted((fields[row], row) for row in members)
    joined = len({field for field, _ in inside}) > 1
    points = [(field, *_score(entries[row], table)) for field, row in inside]
    tags = [members[row] if joined and row != inside[-1][1] else row for _, row in inside]
    lines.append(Line(name, points, numbers[inside[0][1]], tags, joined=joined))
  x = Axis("receptive field, positions (log)", figures.padded(ticks, 0.1, log=True), True, ticks, formatting.count)
  y = Axis(_score_title(table), _limits(table, _edges(entries.values(), table), 0.1))
  alt = f"{formatting.metric(table.primary)} against receptive field. {' '.join(locality.sentences(table))}"
  drawn = figures.plot(lines, x, y, references=_inside(table, y))
  return _picture(table, "Locality", LOCALITY, alt, drawn, locality.sentences(table))


def overview(tables: Sequence[Table], order: Sequence[str], numbers: Numbers) -> pages.Picture | None:
  """All tasks side by side, the same rows in each; None for fewer than two tasks."""
  shown = [table for table in tables if table.scored]
  if len(shown) < columns.FEWEST:
    return None
  scored = {entry.attention for table in shown for entry in table.scored}
  plots = []
  for table in shown:
    best = [entry.attention for entry in table.scored if verdict.standing(entry, table) in ("best", "tied best")]
    ranks = {entry.attention: _rank(entry, table, numbers[entry.attention]) for entry in table.scored}
    ranks = {name: dataclasses.replace(rank, word="best" if name in best else "") for name, rank in ranks.items()}
    x = Axis(formatting.metric(table.primary), _limits(table, _edges(table.scored, table)))
    plots.append((columns.heading(table), x, ranks))
  drawn = figures.matrix({name: numbers[name] for name in order if name in scored}, plots)
  caption = "Test score of every row on every task, with its 95 % interval. Filled: best, or not told from the best."
  alt = f"Scores of {len(scored)} rows on {len(shown)} tasks, with the best of each task filled"
  return pages.Picture("All tasks at a glance", caption, alt, f"{FOLDER}/overview", drawn)


def _family_front(
  front: pareto.Front, table: Table, numbers: Numbers, groups: Mapping[str, Mapping[str, str]]
) -> pages.Picture:
  points = {line.name: line for line in _points(front, table, numbers)}
  best = [point.entry.attention for point in front.best]
  lines = {}
  for name, members in groups.items():
    inside = sorted((points[row] for row in members if row in points), key=lambda line: line.points[0][0])
    if inside:
      tags = [members[line.name] if len(inside) > 1 else "" for line in inside]
      hollow = [line.name not in best for line in inside]
      lines[name] = [Line(name, [line.points[0] for line in inside], inside[0].number, tags, hollow)]
  y = Axis(_score_title(table), _limits(table, _edges([point.entry for point in front.points], table), 0.08))
  x = _cost_axis(front, table)
  title = f"{front.axis.label[0].upper()}{front.axis.label[1:]}"
  caption = f"{FRONT} Grey: the other rows. Numbers: what rows of one family differ in."
  alt = f"{formatting.metric(table.primary)} against {front.axis.label}, a small plot for each of {len(lines)} families"
  drawn = figures.panels(lines, x, y, references=_inside(table, y), stairs=_corners(front))
  return _picture(table, title, caption + _key(table, y), alt, drawn)


def _series(
  table: Table,
  numbers: Numbers,
  title: str,
  caption: str,
  lines: Mapping[str, Sequence[Point]],
  x: Axis,
  y: Axis,
) -> pages.Picture:
  """Curves with bands: in one plot while they are few, else a small plot for each family."""
  drawn = {name: Line(name, _bounded(points, table), numbers[name]) for name, points in lines.items()}
  references = _inside(table, y)
  metric = formatting.metric(table.primary)
  alt = f"{metric} against {x.title} of {formatting.joined(lines)}"
  if len(drawn) <= figures.FEW:
    return _picture(
      table, title, caption, alt, figures.plot(list(drawn.values()), x, y, references=references, bands=True)
    )
  groups = {}
  for name, members in _groups(list(drawn)).items():
    groups[name] = [dataclasses.replace(drawn[row], name=tag) for row, tag in members.items()]
  picture = figures.panels(groups, x, y, references=references, bands=True)
  return _picture(table, title, f"{caption} Grey: the other rows.{_key(table, y)}", alt, picture)


def _picture(
  table: Table, title: str, caption: str, alt: str, figure: "Figure", texts: Sequence[str] = ()
) -> pages.Picture:
  file = f"{FOLDER}/{pages.identifier(f'{columns.heading(table)} {title}').lower()}"
  return pages.Picture(title, caption, f"{columns.heading(table)}: {alt}", file, figure, texts)


def _rank(entry: Entry, table: Table, number: int) -> Rank:
  low, mean, high = _score(entry, table)
  gap, wide = None, None
  if entry.difference:
    interval, corrected = entry.difference.interval, entry.difference.corrected
    gap, wide = (interval.low, interval.mean, interval.high), (corrected.low, corrected.high)
  elif table.scored[0] is entry:
    gap = (0.0, 0.0, 0.0)
  scores = [score for score in entry.scores.values() if score is not None]
  return Rank(entry.attention, mean, number, (low, high), scores, gap, wide, verdict.standing(entry, table))


def _gap_limits(table: Table) -> tuple[float, float]:
  """Ends that show every 95 % interval, and of the corrected ones what does not stretch them by half."""
  gaps = [entry.difference for entry in table.scored if entry.difference]
  plain = [edge for gap in gaps for edge in (gap.interval.low, gap.interval.high)]
  reach = 0.5 * (max(*plain, 0) - min(*plain, 0))
  wide = [edge for gap in gaps for edge in (gap.corrected.low, gap.corrected.high)]
  held = [max(min(edge, max(plain) + reach), min(plain) - reach) for edge in wide]
  return figures.padded([*plain, *held, 0.0], 0.03)


def _points(front: pareto.Front, table: Table, numbers: Numbers) -> list[Line]:
  """Each row of a front as a named point."""
  best = [point.entry.attention for point in front.best]
  return [
    Line(
      name := point.entry.attention,
      [(point.cost, *_score(point.entry, table))],
      numbers[name],
      [name if name in best or len(front.points) <= NAMED else ""],
      [name not in best],
      joined=False,
    )
    for point in front.points
  ]


def _corners(front: pareto.Front) -> list[tuple[float, float]]:
  return pareto.stairs(front)


def _cost_axis(front: pareto.Front, table: Table) -> Axis:
  costs = [point.cost for point in front.points]
  log = min(costs) > 0 and max(costs) >= pareto.LOGARITHMIC * min(costs)
  title = front.axis.title.format(baseline=figure_labels.shorten(table.baseline)) + (" (log)" if log else "")
  return Axis(title, figures.padded(costs, 0.1, log=log), log, text=formatting.short)


def _score(entry: Entry, table: Table) -> tuple[float, float, float]:
  """(low, mean, high) of a row that has a score, within [0, 1] where the metric is a share."""
  mean = entry.score
  (point,) = _bounded([(0.0, mean.low, mean.mean, mean.high)], table)
  return point[1:]


def _edges(entries: Iterable[Entry], table: Table) -> list[float]:
  """The ends of the intervals of rows that have a score."""
  return [edge for entry in entries for edge in _score(entry, table)]


def _bounded(points: Sequence[Point], table: Table) -> list[Point]:
  if not bounded(table):
    return list(points)
  return [(x, max(low, 0.0), mean, min(high, 1.0)) for x, low, mean, high in points]


def bounded(table: Table) -> bool:
  """Whether the metric is a share, so that no interval reaches beyond [0, 1]."""
  scores = [score for entry in table.scored for score in entry.scores.values()]
  return table.higher_is_better and all(score is not None and 0 <= score <= 1 for score in scores)


def _limits(table: Table, values: Sequence[float], share: float = 0.06) -> tuple[float, float]:
  """Ends of an axis of scores: the values, and the references that do not stretch it by half."""
  low, high = min(values), max(values)
  room = 0.5 * (high - low)
  return figures.padded([low, high, *(v for v in table.references.values() if low - room <= v <= high + room)], share)


def _inside(table: Table, y: Axis) -> dict[str, float]:
  """The references that a plot shows."""
  low, high = y.limits or (0.0, 0.0)
  return {name: value for name, value in table.references.items() if low <= value <= high}


def _key(table: Table, y: Axis) -> str:
  """What the dotted lines of small plots are."""
  inside = _inside(table, y)
  names = sorted(inside, key=lambda name: inside[name])
  return f" Dotted, from below: {', '.join(names)}." if names else ""


def _score_title(table: Table) -> str:
  return f"test {formatting.metric(table.primary)}"


def _groups(names: Sequence[str]) -> dict[str, dict[str, str]]:
  """{family: {row: what it is called there}}, in the order of their first rows; a lone row is a family of one."""
  family_of = {row: family for family in families.find(names) for row in family.numbers}
  groups: dict[str, dict[str, str]] = {}
  for name in names:
    if name in family_of:
      family = family_of[name]
      groups[family.title] = {row: number or row for row, number in family.numbers.items()}
    else:
      groups[name] = {name: name}
  return groups


def _apart(ticks: Sequence[float]) -> list[float]:
  """Ticks with room for their numbers on a logarithmic axis; the largest is kept."""
  chosen: list[float] = []
  for value in reversed(ticks):
    if not chosen or chosen[-1] / value > (ticks[-1] / ticks[0]) ** 0.09:
      chosen.append(value)
  return chosen[::-1]


def _curve_values(entry: Entry) -> list[tuple[float, list[float | None]]]:
  """The values of all seeds at each step that all of them have."""
  seeds = [dict(row.get("curve") or []) for row in entry.done]
  steps = sorted(set.intersection(*(set(seed) for seed in seeds))) if seeds else []
  return [(float(step), [seed[step] for seed in seeds]) for step in steps]
