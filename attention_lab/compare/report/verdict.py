"""What a table says, in sentences; names of variants stand in `backticks`."""

import functools
import math
from collections.abc import Iterable, Sequence

from attention_lab.compare.report.tables import SOLVED, Entry, Table
from attention_lab.results import formatting, power, statistics

SHOWN = 3
NAMED = 3  # rows that the sentence of plain English names
RATES = {"÷3": "a third of the learning rate", "×3": "three times the learning rate"}
BUDGETS = {"flops": "FLOPs per token", "state": "bytes of decoding state"}


def plain(table: Table) -> str:
  """The verdict in one sentence of plain English: who is best or tied, and who is behind by how much."""
  if table.broken:
    return f"Undecided: {_names(table.broken)}, the positive control, did not solve the task on every seed."
  if table.lossy:
    return f"Not ranked: {table.lossy}."
  if not table.scored:
    return "No variant finished this task."
  best, *others = table.scored
  if not others or best.score.half is None:
    return _order(table)[0]
  tied = [best, *(entry for entry in others if entry.standing == "tied")]
  behind = [entry for entry in others if entry.standing == "behind"]
  start = f"{_named(tied)} are tied for best" if len(tied) > 1 else f"{_names(tied)} is best"
  if not behind:
    return f"{start}{'' if len(tied) == len(table.scored) else '; the others share too few seeds to be judged'}."
  gaps = [_behind(entry, table) for entry in behind[:NAMED]]
  gaps += [f"{len(behind) - NAMED} more are further behind"] if len(behind) > NAMED else []
  return f"{start}; {formatting.joined(gaps)}."


def _named(entries: Sequence[Entry]) -> str:
  """The names of a few rows; of many the first, and how many more there are."""
  if len(entries) <= NAMED + 1:
    return _names(entries)
  return f"{', '.join(f'`{entry.attention}`' for entry in entries[:NAMED])} and {len(entries) - NAMED} more"


def _behind(entry: Entry, table: Table) -> str:
  """How far a row is behind, with the interval that is corrected for all pairs of the table."""
  gap = entry.gap.corrected
  unit = "" if _is_share(table) else formatting.metric(table.primary)
  low, high = (f"{float(f'{end * (1 if unit else 100):.2g}'):g}" for end in (gap.low, gap.high))
  return f"`{entry.attention}` is behind by {formatting.amount(gap.mean, unit)} (95 % interval {low} to {high})"


def _is_share(table: Table) -> bool:
  """Whether the scores are shares, so that a point is 0.01."""
  scores = [score for entry in table.scored for score in entry.scores.values()]
  return table.higher_is_better and all(0 <= (score or 0) <= 1 for score in scores)


def sentences(table: Table) -> list[str]:
  """The verdict of one table: what is better than what, by how much and how surely; then what it rests on.

  First the order of the rows, or that the instrument failed; what these seeds could show; reference lines and solved
  seeds; second chances, trials and budget; what could not run.
  """
  lines = [*_broken(table), *_lossy(table)] or [*_order(table), *_power(table), *_controls(table)]
  lines += [*_solved(table), *_chances(table), *_footing(table)]
  lines += [f"`{entry.attention}` is refused: {_stop(entry.reasons[0])}" for entry in _with(table, "refused")]
  lines += [f"`{entry.attention}` failed: {_stop(entry.reasons[0])}" for entry in _with(table, "failed")]
  lines += [
    f"`{entry.attention}` diverged: a seed has no finite score, so it has no mean."
    for entry in _with(table, "diverged")
  ]
  return lines + [sentence for entry in table.scored for sentence in _missing(entry, table)]


def caution(table: Table) -> str:
  """How far the seeds of a table carry."""
  seeds = min((entry.score.n for entry in table.scored), default=0)
  if seeds == 0:
    return "No finished run, so nothing is shown."
  if seeds == 1:
    return "1 seed: no interval and no test. The order of the rows is not evidence; run with --seeds=3 or more."
  prior = max((entry.difference.prior for entry in table.scored if entry.difference), default=0.0)
  more = f", of a difference with {seeds - 1 + prior:.3g}, as the noise of all pairs is weighed in" if prior else ""
  return (
    f"{seeds} seeds; a permutation test could at best reach p = {statistics.smallest_p(seeds):.2g}. The interval of a "
    f"mean is Student's t with {seeds - 1} degree{'s' * (seeds > 2)} of freedom{more}; they rest on noise that is "
    "roughly normal."
  )


def standing(entry: Entry, table: Table) -> str:
  """The word of a row: the rows that cannot be told from the best all carry the same one.

  Where the positive control failed or text is lost, every row with a score is undecided.
  """
  if entry.standing == "best" and any(other.standing == "tied" for other in table.entries):
    return "tied best"
  if entry.standing == "best" and all(other.standing == "undecided" for other in table.scored if other is not entry):
    return "undecided"
  return {"tied": "tied best", "alone": "only row"}.get(entry.standing, entry.standing)


def _broken(table: Table) -> list[str]:
  """That the instrument failed: without a control that solves the task, a row that does not solve it shows nothing."""
  failed = []
  for entry in table.broken:
    runs = len({row["seed"] for row in entry.rows})
    failed.append(f"`{entry.attention}`, the positive control, solved {entry.solved} of {runs} seed{'s' * (runs != 1)}")
  if not failed:
    return []
  claim = f"No order of the rows is claimed until the control reaches {SOLVED} on every seed."
  return [f"Undecided: the instrument failed: {formatting.joined(failed)}.", claim]


def _lossy(table: Table) -> list[str]:
  """That the scores are of a part of the text, which a tokenizer of other words would not share."""
  fix = "byte, bpe or, with all characters, char lose nothing"
  return [f"No order of the rows is claimed: {table.lossy}; {fix}."] if table.lossy else []


def _order(table: Table) -> list[str]:
  if not table.scored:
    return ["No variant finished this task."]
  best, *others = table.scored
  digits = formatting.decimals(entry.interval for entry in table.scored)
  mean = f"{formatting.plus_minus(best.interval, digits)} {formatting.metric(table.primary)}"
  if not others:
    return [f"`{best.attention}` is the only variant with a score: {mean}."]
  if best.score.half is None:
    mean = f"{formatting.score(best.score.mean, digits)} {formatting.metric(table.primary)}"
    return [f"`{best.attention}` has the best score, {mean}, but one seed says nothing about the order."]
  tied, behind, open_ = (
    [entry for entry in others if entry.standing == standing_] for standing_ in ("tied", "behind", "undecided")
  )
  lines = [f"`{best.attention}` is best: {mean}."]
  if tied:
    names = formatting.joined(f"`{entry.attention}`" for entry in (best, *tied))
    extreme = "highest" if table.higher_is_better else "lowest"
    lines = [f"{names} are tied for best; the {extreme} mean is {mean}."]
    lines += [f"These seeds do not tell them apart: {_gaps(tied, digits, ' trails by')}."]
  if behind:
    lines += [f"`{best.attention}` is ahead of {_gaps(behind, digits, ' by')}."]
  return lines + [f"`{entry.attention}` shares too few seeds with `{best.attention}` to be judged." for entry in open_]


def _gaps(entries: Sequence[Entry], digits: int, verb: str) -> str:
  shown = [
    f"`{entry.attention}`{verb} {formatting.between(entry.gap.corrected, digits)} ({_sure(entry)})"
    for entry in entries[:SHOWN]
  ]
  return formatting.joined([*shown, *([f"{len(entries) - SHOWN} more"] if len(entries) > SHOWN else [])])


def _sure(entry: Entry) -> str:
  p, effect = formatting.p_value(entry.gap.p_holm), formatting.effect(entry.effect)
  return f"Holm {p}, {effect}" if effect else f"Holm {p}"


def _power(table: Table) -> list[str]:
  """What these seeds could show, at the noise of the rows that are tied with the best, or of all if none is."""
  gaps = [entry for entry in table.scored if entry.difference]
  if not gaps:
    return []
  tied = [entry for entry in gaps if entry.standing == "tied"]
  n = min(entry.gap.interval.n for entry in tied or gaps)
  prior = min(entry.gap.prior for entry in tied or gaps)
  deviations = [entry.gap.deviation or 0.0 for entry in tied or gaps]
  share = _is_share(table)
  amount = functools.partial(formatting.amount, unit="" if share else formatting.metric(table.primary))
  noise = "the tied rows" if tied else "these rows"
  line = power.line(power.pooled(deviations), n, table.tests, noise, amount, 1.0 if share else math.inf, prior)
  return [line] if line else []


def _controls(table: Table) -> list[str]:
  if not table.scored or not table.references:
    return []
  best = table.scored[0]
  digits = formatting.decimals(entry.interval for entry in table.scored)
  parts = [
    f"{_relation(best.score, value, table.higher_is_better)} {name} ({formatting.score(value, digits)})"
    for name, value in table.references.items()
  ]
  return [f"`{best.attention}` is {formatting.joined(parts)}."]


def _relation(interval: statistics.Interval, value: float, higher: bool) -> str:
  if interval.low <= value <= interval.high and interval.half is not None:
    return "not to be told from"
  return "better than" if (interval.mean > value) == higher else "worse than"


def _solved(table: Table) -> list[str]:
  if not table.jumps:
    return []
  shares = [
    f"`{entry.attention}` on {entry.solved} of {len(entry.scores)} seeds" for entry in table.scored if entry.solved
  ]
  lines = [f"Solved (≥ {SOLVED}) by {formatting.joined(shares)}."]
  return lines if table.broken else lines + _luck(table)


def _luck(table: Table) -> list[str]:
  """That a row which jumps on some seeds only has a mean of lucky and unlucky ones, where the seeds are too few."""
  mixed = [entry for entry in table.scored if 0 < entry.solved < len(entry.scores)]
  n = max((len(entry.scores) for entry in mixed), default=0)
  p = min(1.0, max(1, table.tests) * 2 / math.comb(2 * n, n))  # Fisher's exact test of n of n against 0 of n
  if not mixed or p < statistics.ALPHA:
    return []
  start = f"{_names(mixed)} solved it on some seeds only, so a mean here is partly luck"
  return [f"{start}: even {n} of {n} seeds against 0 of {n} is Holm {formatting.p_value(p)} by Fisher's exact test."]


def _chances(table: Table) -> list[str]:
  """Whether the rows behind on validation had a second learning rate, and what came of it."""
  if not table.scored:
    return []
  if not table.chances:
    return ["No row had a second chance (--nosecond_chance)."]
  had = [entry for entry in table.entries if entry.tuning.get("second")]
  if not had:
    return ["No row was behind on validation, so none had a second chance."]
  taken, digits = (
    [entry for entry in had if _took(entry)],
    formatting.decimals(entry.interval for entry in table.scored),
  )
  lines = [_taken(entry, digits) for entry in taken[:SHOWN]]
  if len(taken) > SHOWN:
    lines.append(f"So had {len(taken) - SHOWN} more, which the caption of the table names.")
  lines += _edge(table)
  unchanged = _names(entry for entry in had if not _took(entry))
  if unchanged:
    lines.append(f"{unchanged} had a second chance: neither a third nor three times the learning rate did better.")
  none = _names(entry for entry in table.entries if entry.standing == "behind" and entry not in had)
  if none:
    lines.append(f"{none} had none: validation did not tell them behind.")
  return lines


def _edge(table: Table) -> list[str]:
  """That most rows took the same rate, which is the last that was tried on its side."""
  for rate, side in (("÷3", "high"), ("×3", "low")):
    many = sum(_took(entry) == rate for entry in table.scored)
    if 2 * many > len(table.scored) > 1:
      rows = f"{many} of {len(table.scored)} rows were better at {RATES[rate]}, the last that was tried"
      return [f"{rows}: this table's learning rate is too {side}, and the best one may lie beyond."]
  return []


def _took(entry: Entry) -> str:
  return entry.tuning.get("taken") or ""


def _taken(entry: Entry, digits: int) -> str:
  """`before` is the mean on validation at the first rate, which older rows do not record."""
  before, after = entry.tuning.get("before"), entry.tuning["second"][_took(entry)]
  start = "" if before is None else f"{formatting.score(before, digits)} to "
  gain = f"{start}{formatting.score(after, digits)} on validation"
  return f"`{entry.attention}` had its second chance: {RATES[_took(entry)]}, taken, {gain}."


def _footing(table: Table) -> list[str]:
  """How the rows were tuned, and to what budget they were brought."""
  if not table.scored:
    return []
  trials, match, target = table.trials, table.match, table.footing.target
  tuned = "No row was tuned: --trials=0."
  if trials:
    tuned = f"Each row had {'the same ' * (trials > 1)}{trials} trial{'s' * (trials > 1)}, judged on validation."
  if match == "time":
    return [tuned, "All rows take the baseline's time for a step within 1 %."]
  if match != "none" and target is not None:
    return [tuned, f"All rows are within 1 % of {formatting.count(target)} {BUDGETS.get(match, match)}."]
  sizes = [size for entry in table.scored if (size := entry.cost("parameters"))]
  least, most = (formatting.count(end) for end in (min(sizes, default=0), max(sizes, default=0)))
  spread = f"; parameters from {least} to {most}" if least != most else f"; all rows have {most} parameters"
  return [tuned, f"Budgets are not matched: --match=none{spread if sizes else ''}."]


def _missing(entry: Entry, table: Table) -> list[str]:
  """The seeds that a row with a score lacks, and why."""
  if entry.reasons:
    return [f"`{entry.attention}` lacks seeds, its other runs failed: {_stop(entry.reasons[0])}"]
  lacking = sorted(set(table.seeds) - entry.scores.keys())
  if not lacking:
    return []
  seeds = f"seed{'s' * (len(lacking) > 1)} {formatting.joined(map(str, lacking))}"
  return [f"`{entry.attention}` was not run on {seeds}, and is judged on the seeds that it has."]


def _names(entries: Iterable[Entry]) -> str:
  return formatting.joined(f"`{entry.attention}`" for entry in entries)


def _with(table: Table, standing_: str) -> list[Entry]:
  return [entry for entry in table.entries if entry.standing == standing_]


def _stop(text: str) -> str:
  return text if text.endswith((".", "!", "?")) else text + "."
