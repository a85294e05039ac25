"""How far each row trails the best: thick the 95 % interval, thin the one corrected for all pairs of rows."""

from attention_lab.compare.report import plots, verdict
from attention_lab.compare.report.tables import Entry, Table
from attention_lab.results import formatting, svg

CAPTION = "Paired by seed. Thick: 95 %; thin: corrected for all pairs of rows. A thin line that touches zero is a tie."


def figure(table: Table, numbers: plots.Numbers) -> plots.Figure | None:
  """The rows under each other, the best one first; None where no row has another to be compared with."""
  others = [entry for entry in table.scored if entry.difference]
  if not others:
    return None
  plain = [edge for one in others for edge in (one.difference.interval.low, one.difference.interval.high)]
  reach = 0.5 * (max(*plain, 0) - min(*plain, 0))
  whole = [edge for one in others for edge in (one.difference.corrected.low, one.difference.corrected.high)]
  wide = [max(min(edge, max(plain) + reach), min(plain) - reach) for edge in whole]
  rows = [table.scored[0], *others]
  frame = svg.Frame(
    svg.padded([*plain, *wide, 0.0]),
    svg.Scale(len(rows) - 0.5, -0.5),
    height=60.0 + (34 if len(rows) < 9 else 24) * len(rows),
    left=22 + max(svg.extent(svg.shorten(entry.attention)) for entry in rows),
    top=8.0,
    right=22 + max(svg.extent(verdict.standing(entry, table)) for entry in rows),
  )
  zero = frame.column(0.0)
  parts = [svg.line((zero, frame.top), (zero, frame.height - frame.bottom), "zero")]
  parts += [_row(frame, entry, rank, numbers[entry.attention], table) for rank, entry in enumerate(rows)]
  parts.append(svg.axes(frame, f"{formatting.metric(table.primary)} behind the best", plots.ticked(frame.x)))
  picture = svg.figure(frame, parts, f"Paired differences to the best row, {table.task}")
  return plots.Figure("Distance to the best", CAPTION, picture)


def _row(frame: svg.Frame, entry: Entry, rank: int, number: int, table: Table) -> str:
  at = frame.row(float(rank))
  parts = [svg.text((frame.left - 12, at + 4), entry.attention, "name end", number)]
  parts.append(svg.text((frame.width - frame.right + 12, at + 4), verdict.standing(entry, table), "tick"))
  if not entry.difference:
    return "".join([*parts, svg.marker((frame.column(0.0), at), number, 5.0)])
  edge, gap = frame.width - frame.right, entry.difference.interval
  for kind, shown in (("whisker", entry.difference.corrected), ("interval", gap)):
    low, high = (min(max(frame.column(end), frame.left), edge) for end in (shown.low, shown.high))
    parts.append(svg.line((low, at), (high, at), kind, number))
  return "".join([*parts, svg.marker((frame.column(gap.mean), at), number, 5.0)])
