"""What the variants of a report claim: the masks they honour, what they can be used for, and how their costs grow."""

import sys
from collections.abc import Iterable, Mapping, Sequence

from attention_lab.attention import spec
from attention_lab.attention.base import Claims
from attention_lab.compare.schedule import row_spec
from attention_lab.results import formatting, pages
from attention_lab.results.pages import NO, YES

MOST_LAYERS = 64
MASKS = {"causal": "causal", "window": "window", "prefix": "prefix", "segments": "packing", "explicit": "any mask"}
FLAGS = {
  "bias": "bias on\nlogits",
  "cross": "cross-\nattention",
  "decode": "decoding",
  "supports_gqa": "grouped\nkeys",
  "per_query": "each query\non its own",
  "encodes_positions": "tells\npositions",
}
POWERS = {"time_exponent": "time", "memory_exponent": "memory", "state_exponent": "state"}
EXACTNESS = ("exact", "approximate", "other")
READING = (
  f"{YES} claimed and {NO} refused by name. Causal “only”: it runs under a causal mask alone. Exact: softmax over all "
  "readable keys; approximate: tends to it; other: another map. Time, temporaries and decoding state grow with the "
  "length T as written. Of several layers: what all of them claim, and their largest costs. "
  "`python -m experiments.certify --attention=SPEC` proves the claims of a row.",
)


def sheet(order: Iterable[str], numbers: Mapping[str, int] = {}) -> pages.Table | None:
  """A line for each spec of the report; None where none can be read."""
  lines = [(name, claims) for name in specs(order) if (claims := read(name))]
  if not lines:
    return None
  head = ["variant", *MASKS.values(), "padding", *FLAGS.values(), "exactness", *POWERS.values()]
  return pages.Table(
    head, [[f"`{name}`", *_cells(claims)] for name, claims in lines], kind="capabilities", marks=numbers
  )


def explanation(order: Iterable[str]) -> list[str]:
  """How to read the sheet, and which rows it leaves out."""
  order = list(order)
  others = [name for name in order if "architecture" in _changes(name)]
  unknown = [name for name in specs(order) if read(name) is None]
  lines = list(READING)
  if others:
    lines.append(f"Left out, for they are another architecture: {_listed(others)}.")
  if unknown:
    lines.append(
      f"Left out, for their claims cannot be read here (a user's package, or no variant): {_listed(unknown)}."
    )
  return lines


def read(name: str) -> tuple[Claims, ...] | None:
  """The claims of the layers of a spec; None for one that does not parse, or whose package is not loaded already."""
  if not spec.packages(name) <= sys.modules.keys():
    return None
  try:
    return tuple(variant.claims() for variant in dict.fromkeys(spec.layers(name, MOST_LAYERS)))
  except ValueError:
    return None


def specs(order: Iterable[str]) -> list[str]:
  """The specs of the rows that are attention variants, each once; rows of another architecture are left out."""
  return list(dict.fromkeys(name.partition("@")[0] for name in order if "architecture" not in _changes(name)))


def _changes(name: str) -> dict[str, str]:
  try:
    return row_spec.split(name)[1]
  except ValueError:
    return {}


def _cells(claims: Sequence[Claims]) -> list[str]:
  honoured = frozenset.intersection(*(layer.masks for layer in claims))
  masks = [_mark(name in honoured) for name in MASKS]
  if any(layer.requires_causal for layer in claims):
    masks[0] = "only"
  padding = _mark({"q_valid", "kv_valid"} <= honoured)
  flags = [_mark(all(getattr(layer, name) for layer in claims)) for name in FLAGS]
  exactness = max((layer.exactness for layer in claims), key=EXACTNESS.index)
  return [
    *masks,
    padding,
    *flags,
    exactness,
    *(_power(max(getattr(layer, name) for layer in claims)) for name in POWERS),
  ]


def _mark(claimed: bool) -> str:
  return YES if claimed else NO


def _power(exponent: int) -> str:
  return {0: "1", 1: "T", 2: "T²", 3: "T³"}.get(exponent, f"T^{exponent}")


def _listed(names: Iterable[str]) -> str:
  return formatting.joined(f"`{name}`" for name in names)
