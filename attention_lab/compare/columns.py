"""The words and numbers of a table, whatever it is written in."""

from attention_lab.compare import numerals
from attention_lab.compare.tables import Entry, Table


def heading(table: Table) -> str:
  """The task, and what tells this table from others of the same task."""
  binary, _, dataset = table.task.partition(":")
  name = f"{numerals.metric(binary)}: {dataset}" if dataset else numerals.metric(binary)
  return f"{name} ({table.label})" if table.label else name


def direction(table: Table) -> str:
  """The metric in words and which way is better."""
  way = "higher is better" if table.higher_is_better else "lower is better"
  return f"{numerals.metric(table.primary)} on the test split, {way}" if table.primary else "no run finished"


def titles(table: Table) -> list[str]:
  """Titles of the columns after variant and standing; a line break where a narrow column may have one."""
  score, seeds = f"{numerals.metric(table.primary)}\nmean ± 95 %", "seeds\n≥ 0.99" if table.jumps else "seeds"
  costs = ["parameters", "FLOPs\nper token", f"step time\n÷ `{table.baseline or 'first'}`", "peak\nMiB"]
  return [score, "behind the best\n[95 %]", "p\n(Holm)", seeds, *costs]


def cells(entry: Entry, table: Table) -> list[str]:
  """The cells of a scored row under `titles`."""
  places, gap = digits(table), entry.difference
  share = f"{entry.solved} of {len(entry.scores)}" if table.jumps else str(len(entry.scores))
  return [
    numerals.plus_minus(entry.interval, places),
    numerals.between(gap.interval, places) if gap else "",
    numerals.p_value(gap.p_holm).removeprefix("p ").removeprefix("= ") if gap else "",
    share,
    numerals.thousands(entry.cost("parameters")),
    numerals.thousands(entry.cost("flops_per_token")),
    numerals.ratio(entry.time_ratio),
    numerals.mebibytes(entry.cost("peak_bytes")),
  ]


def digits(table: Table) -> int:
  """Decimals of the scores of a table."""
  return numerals.decimals(entry.interval for entry in table.scored)
