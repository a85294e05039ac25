"""The report as plain Markdown: the tables of the page without its pictures."""

from collections.abc import Iterable, Sequence

from attention_lab.compare import numerals, protocol, verdict
from attention_lab.compare.tables import Entry, Table


def page(tables: Sequence[Table], notes: Sequence[str]) -> str:
  """The whole of report.md."""
  parts = ["# Attention variants compared", *(f"> {note}" for note in notes)]
  for table in tables:
    parts += [f"## {heading(table)}", " ".join(verdict.sentences(table)), f"*{verdict.caution(table)}*"]
    parts += [f"> {note}" for note in table.notes]
    parts += [f"Primary metric: {direction(table)}.", _table(table), "### Commands", _commands(table)]
    parts += ["### Protocol", _grid(("", ""), protocol.facts(table))]
  return "\n\n".join([*parts, "## How to read this", *protocol.READING]) + "\n"


def heading(table: Table) -> str:
  """The task, and what tells this table from others of the same task."""
  return f"{numerals.metric(table.task)}{f' ({table.label})' if table.label else ''}"


def direction(table: Table) -> str:
  """The metric in words and which way is better."""
  way = "higher is better" if table.higher_is_better else "lower is better"
  return f"{numerals.metric(table.primary)} on the test split, {way}" if table.primary else "none, no run finished"


def share(entry: Entry, table: Table) -> str:
  """How many seeds a row has, or where it says something how many of them reached 0.99."""
  return f"{entry.solved} of {len(entry.scores)}" if table.jumps else str(len(entry.scores))


def _table(table: Table) -> str:
  digits = numerals.decimals(entry.interval for entry in table.scored)
  head = ["variant", "standing", f"{numerals.metric(table.primary)} ± 95 %", "behind the best [95 %]", "p (Holm)"]
  head += ["seeds ≥ 0.99" if table.jumps else "seeds"]
  head += ["parameters", "FLOPs/token", f"step time ÷ `{_escape(table.baseline)}`", "peak MiB"]
  rows = [(_rank(table, entry.interval.mean), _scored(entry, table, digits)) for entry in table.scored]
  blank = [""] * (len(head) - 3)
  rows += [
    (_rank(table, value), [name, "reference", numerals.score(value, digits), *blank])
    for name, value in table.references.items()
  ]
  rest = [
    [f"`{_escape(entry.attention)}`", entry.standing, _escape("; ".join(entry.reasons)), *blank]
    for entry in table.entries
    if not entry.interval
  ]
  return _grid(head, [*(row for _, row in sorted(rows, key=lambda row: row[0])), *rest])


def _scored(entry: Entry, table: Table, digits: int) -> list[str]:
  gap = entry.difference
  cells = [f"`{_escape(entry.attention)}`", verdict.standing(entry, table), numerals.plus_minus(entry.interval, digits)]
  cells += [numerals.between(gap.interval, digits), numerals.p_value(gap.p_holm)[2:].lstrip("= ")] if gap else ["", ""]
  cells += [share(entry, table)]
  cells += [numerals.thousands(entry.cost("parameters")), numerals.thousands(entry.cost("flops_per_token"))]
  return [*cells, numerals.ratio(entry.time_ratio), numerals.mebibytes(entry.cost("peak_bytes"))]


def _rank(table: Table, value: float) -> float:
  return -value if table.higher_is_better else value


def _commands(table: Table) -> str:
  lines = [f"{row['attention']}, seed {row['seed']}:\n  {row['command']}" for row in table.rows if row.get("command")]
  return "```text\n" + "\n".join(lines) + "\n```"


def _grid(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
  lines = [head, ["---"] * len(head), *rows]
  return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _escape(text: str) -> str:
  return text.replace("|", "\\|")
