"""Score against receptive field: whether a task asks for more than its neighbourhood.

Of each receptive field the row with the best mean stands for what can be had within it. Rows of several mechanisms
differ in more than their range, so that softmax and its windows, which do not, are asked alone too.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from attention_lab.compare.report import families
from attention_lab.compare.report.tables import Entry, Table
from attention_lab.results import statistics

LONGER = "the task needs long range"
FEWEST = 3  # receptive fields that make a picture
SHARE = 0.95  # of the gain over chance
LOCAL, LONG = 1 / 8, 1 / 2  # of the length: up to the first a task is local, beyond the second it needs long range
WINDOWS = ("softmax", "local(window=#)")  # one mechanism, by its range alone; # is a number


@dataclasses.dataclass(frozen=True)
class Probe:
  """The rows with a known receptive field (positions), and what they say; `length` is the table's, if recorded.

  `enough` is the smallest field whose best row has 95 % of the gain over chance that the largest field's best row has;
  `like` the smallest from which on no field's best row is told from the largest one's. None where it cannot be said.
  """

  fields: tuple[tuple[int, Entry], ...]
  length: int
  enough: int | None
  like: int | None
  learned: bool


def probe(table: Table) -> Probe | None:
  """What a table tells about its task's range; None with fewer than three receptive fields."""
  return _probe(table, table.scored)


def _probe(table: Table, entries: Iterable[Entry]) -> Probe | None:
  known = [(int(field), entry) for entry in entries if (field := entry.cost("receptive_field"))]
  known = sorted(known, key=lambda pair: pair[0])
  sizes = sorted({field for field, _ in known})
  if len(sizes) < FEWEST:
    return None
  sign = 1 if table.higher_is_better else -1
  best = {size: max((e for f, e in known if f == size), key=lambda e: sign * e.score.mean) for size in sizes}
  chance = table.references.get("chance")
  learned = chance is None or _above(best[sizes[-1]], chance, sign)
  enough = like = None
  if learned:
    enough = _enough(best, sizes, chance)
    like = _like(best, sizes, table.higher_is_better)
  return Probe(tuple(known), _length(table, sizes[-1]), enough, like, learned)


def sentences(table: Table) -> list[str]:
  """What the probe says of the task, in words; none without a probe."""
  answer = probe(table)
  if not answer:
    return []
  largest = answer.fields[-1][0]
  if not answer.learned:
    return [f"No row with the largest receptive field ({largest} positions) is told from chance: nothing can be said."]
  lines = []
  if answer.enough is not None:
    reached = f"{SHARE:.0%} of the gain over chance is reached at {answer.enough} of {answer.length} positions"
    lines.append(f"{reached}{_judged(answer, table)}.")
  if answer.like == largest:
    lines.append(f"Every smaller receptive field is told from the largest one, {largest} positions.")
  elif answer.like == answer.fields[0][0]:
    lines.append(
      f"Not even the smallest receptive field, {answer.like} positions, is told to be worse than the largest."
    )
  elif answer.like is not None:
    lines.append(f"From {answer.like} positions on no receptive field is told to be worse than the largest, {largest}.")
  if largest < answer.length:
    lines.append(f"No row reads more than {largest} of {answer.length} positions, so longer range was not tried.")
  return [text.replace("%", " %", 1) for text in lines]


def _enough(best: Mapping[int, Entry], sizes: Sequence[int], chance: float | None) -> int | None:
  if chance is None:
    return None
  gain = best[sizes[-1]].score.mean - chance
  return next(size for size in sizes if (best[size].score.mean - chance) / gain >= SHARE)


def _like(best: Mapping[int, Entry], sizes: Sequence[int], higher: bool) -> int | None:
  largest = best[sizes[-1]]
  step = statistics.step([score for entry in best.values() for score in entry.finite.values()])
  gaps = []
  for size in sizes[:-1]:
    if not largest.scores.keys() & best[size].scores.keys():
      return None
    gaps.append(statistics.paired(largest.finite, best[size].finite, higher, step))
  p_values = [gap.p for gap in gaps if gap.p is not None]
  if len(p_values) < len(gaps):
    return None
  corrected = statistics.holm(p_values)
  worse = [p < statistics.ALPHA and gap.interval.mean > 0 for p, gap in zip(corrected, gaps, strict=True)]
  return sizes[max((index for index, told in enumerate(worse) if told), default=-1) + 1]


def _above(entry: Entry, chance: float, sign: int) -> bool:
  edge = entry.score.low if sign > 0 else entry.score.high
  return sign * (edge - chance) > 0


def _length(table: Table, largest: int) -> int:
  recorded = {row["config"].get("config.data.length") for row in table.done if row.get("config")}
  known = [int(value) for value in recorded if isinstance(value, int) and value > 0]
  return max([largest, *known])


def _judged(answer: Probe, table: Table) -> str:
  """What the task is called; long-range only if rows that differ in nothing but their range do not deny it."""
  called = _called(answer)
  alone = _probe(table, [entry for entry in table.scored if families.NUMBER.sub("#", entry.attention) in WINDOWS])
  if called != LONGER or alone in (None, answer) or alone.enough is None:
    return f": {called}"
  if _called(alone) == LONGER:
    return f": {called}, and softmax and its windows alone, which differ in nothing but their range, say so too"
  return (
    f", but softmax and its windows alone, which differ in nothing but their range, reach theirs at {alone.enough}. "
    "What is gained beyond is another mechanism's, and the task is not shown to need long range"
  )


def _called(answer: Probe) -> str:
  enough = answer.enough or answer.length
  share = enough / answer.length
  if share > LONG:
    return LONGER
  kind = "local" if share <= LOCAL else "of middle range"
  if answer.like is not None and answer.like > enough:
    return f"the task is mostly {kind}, and the rest of the gain needs more"
  return f"the task is {kind}"
