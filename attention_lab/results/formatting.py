"""How numbers are written in a report: as many digits as their intervals allow, ratios, powers of a thousand."""

import math
from collections.abc import Iterable

from attention_lab.results.statistics import Interval

MINUS = "\N{MINUS SIGN}"
LARGE = 100  # effect sizes beyond it say no more


def decimals(intervals: Iterable[Interval | None]) -> int:
  """Decimals, 2 to 4, that show two digits of the median half-width; 3 when there is none."""
  halves = sorted(interval.half for interval in intervals if interval and interval.half)
  return min(max(1 - math.floor(math.log10(halves[len(halves) // 2])), 2), 4) if halves else 3


def score(value: float | None, digits: int) -> str:
  """A metric's value; a dash when there is none."""
  if value is None:
    return "–"
  shown = f"{abs(value):.{digits}f}"
  return f"{MINUS}{shown}" if value < 0 and float(shown) else shown


def plus_minus(interval: Interval | None, digits: int) -> str:
  """`0.713 ± 0.021`, or the bare mean and `(1 seed)`."""
  if interval is None:
    return "–"
  if interval.half is None:
    return f"{score(interval.mean, digits)} (1 seed)"
  return f"{score(interval.mean, digits)} ± {score(interval.half, digits)}"


def between(interval: Interval, digits: int) -> str:
  """`0.031 [0.012, 0.050]`, or the bare mean when there is no interval."""
  if interval.half is None:
    return score(interval.mean, digits)
  return f"{score(interval.mean, digits)} [{score(interval.low, digits)}, {score(interval.high, digits)}]"


def p_value(p: float | None) -> str:
  """`p = 0.031`, `p < 0.001`, or nothing."""
  if p is None:
    return ""
  return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def effect(g: float | None) -> str:
  """`g = 4.2`, `g > 100`, or nothing."""
  return "" if g is None else f"g > {LARGE}" if g > LARGE else f"g = {score(g, 1)}"


def amount(value: float, unit: str) -> str:
  """A difference with two digits and its unit: `2.1 points` where `unit` is "" (1 point = 0.01), else `0.05 loss`."""
  shown = f"{float(f'{value * (1 if unit else 100):.2g}'):g}"
  return f"{shown} {unit or ('point' if shown == '1' else 'points')}"


def thousands(value: float | int | None) -> str:
  """Three significant digits and k, M, G, T: `1.25 M`."""
  if value is None:
    return "–"
  power = min(max(int(math.log10(abs(value)) // 3), 0), 4) if value else 0
  scaled = value / 1000.0**power
  shown = f"{scaled:.{2 if scaled < 10 else 1 if scaled < 100 else 0}f}" if power else f"{scaled:.0f}"
  return f"{shown}{chr(0xA0) if power else ''}{['', 'k', 'M', 'G', 'T'][power]}"


def short(value: float) -> str:
  """A tick of a cost: `30 k`, `1.5 M`, `0.25`."""
  power = next((power for power in (4, 3, 2, 1) if abs(value) >= 0.9995 * 1000.0**power), 0)
  unit = f"\N{NO-BREAK SPACE}{'kMGT'[power - 1]}" if power else ""
  return f"{value / 1000.0**power:.3g}{unit}"


def count(value: float | int) -> str:
  """A whole number with its thousands set apart."""
  return f"{value:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def mebibytes(value: float | int | None) -> str:
  """Bytes as MiB with three significant digits."""
  if value is None:
    return "–"
  size = value / 2**20
  return f"{size:.{2 if size < 10 else 1 if size < 100 else 0}f}"


def ratio(value: float | None) -> str:
  """`1.25×`."""
  return "–" if value is None else f"{value:.2f}×"


def metric(name: str) -> str:
  """`bits_per_byte` as words."""
  return name.replace("_", " ")


def joined(parts: Iterable[str]) -> str:
  """`a, b and c`."""
  items = list(parts)
  return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}" if items else ""
