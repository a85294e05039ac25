"""A page of Markdown on a dataset: sizes, repeats, overlap of splits, lengths, labels, digests."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from attention_lab.data import example_hashes
from attention_lab.data.dataset import SPLITS, Dataset
from attention_lab.data.example_hashes import Contents
from attention_lab.data.folds import JOINED

MOST_CLASSES = 20  # rows of the table of labels; of more classes, the largest, and the others in one row
_SPREAD = np.uint64(0x9E3779B97F4A7C15)  # odd: keys of one input under two labels differ


def report(source: Dataset) -> str:
  """The page on a dataset; reads every example once (60,000 images or 50,000 rows of text in seconds).

  Inputs are equal where all that the model reads is, labels aside. Controls are not computed.
  """
  read = {split: example_hashes.read(source.splits[split]) for split in SPLITS if split in source.splits}
  overlaps = {(a, b): _overlap(read[a], read[b]) for a in read for b in read if a != b}
  parts = [
    f"# Data: {source.name}",
    _metadata(source.metadata),
    _findings(read, overlaps),
    _table("", read, _sizes(source, read)),
    "Inputs are equal where the model reads the same: texts as their tokens, cut to the length, unknown words alike.",
    _shared(read, overlaps),
    "## Lengths",
    _lengths(source, read),
    "## Labels",
    _labels(source, read),
  ]
  return "\n\n".join(part for part in parts if part) + "\n"


def _metadata(metadata: Mapping[str, Any]) -> str:
  scalars = {name: value for name, value in metadata.items() if isinstance(value, str | int | float)}
  lines = [f"- {name}: {_number(value)}" for name, value in scalars.items() if value != ""]
  for value in metadata.values():
    if isinstance(value, Mapping):
      lines += [f"- {split}: {value[split]}" for split in SPLITS if isinstance(value.get(split), str)]
  if "fold" in metadata:
    last = metadata["fold"]["folds"] - 1
    lines.append(f"- validation is part {metadata['fold']['fold']} (of 0 to {last}) of {JOINED}")
  return "\n".join(lines)


def _findings(read: Mapping[str, Contents], overlaps: Mapping[tuple[str, str], tuple[int, int]]) -> str:
  """The findings that a reader should not miss, in sentences."""
  sentences = []
  for (split, earlier), (count, differing) in overlaps.items():
    if count and list(read).index(split) > list(read).index(earlier):
      label = f", {differing:,} of them with another label" if differing else ""
      sentences.append(
        f"{_share(count, len(read[split].inputs))} of the {split} inputs also stand in {earlier}{label}."
      )
  for split, examples in read.items():
    conflicting = _conflicting(examples)
    if conflicting:
      sentences.append(
        f"{_share(conflicting, len(examples.inputs))} of the {split} inputs stand there under another label too."
      )
  known = read.get("train")
  for split, examples in read.items():
    if split != "train" and known and known.label is not None and examples.label is not None:
      unseen = ~np.isin(examples.label, known.label)
      if unseen.any():
        sentences.append(f"{_share(unseen.sum(), len(unseen))} of the {split} examples have a label that train lacks.")
  if not any(count for count, _ in overlaps.values()):
    sentences.insert(0, "No input stands in two splits.")
  return "\n\n".join(f"**{sentence}**" for sentence in sentences)


def _sizes(source: Dataset, read: Mapping[str, Contents]) -> dict[str, list[str]]:
  sizes = {split: len(examples.inputs) for split, examples in read.items()}
  repeats = {split: sizes[split] - len(np.unique(examples.inputs)) for split, examples in read.items()}
  rows = {
    "examples": [f"{size:,}" for size in sizes.values()],
    "repeats of an earlier input": [_share(repeats[split], sizes[split]) for split in read],
  }
  if any(examples.label is not None for examples in read.values()):
    rows["input under another label too"] = [
      _share(_conflicting(examples), len(examples.inputs)) for examples in read.values()
    ]
  for name, value in source.metadata.items():
    if isinstance(value, Mapping) and isinstance(value.get("test"), int) and name not in ("sizes", "truncated"):
      rows[name] = [f"{value[split]:,}" if split in value else _joined(value) for split in read]
  return rows | {"digest": [f"`{source.digests.get(split, '')}`" for split in read]}


def _joined(value: Mapping[str, int]) -> str:
  """A number by split that a fold has left for train and validation together."""
  return f"{value[JOINED]:,} in both" if JOINED in value else "–"


def _shared(read: Mapping[str, Contents], overlaps: Mapping[tuple[str, str], tuple[int, int]]) -> str:
  if not any(count for count, _ in overlaps.values()):
    return ""
  rows = {}
  for split, examples in read.items():
    rows[split] = ["–" if split == other else _share(overlaps[split, other][0], len(examples.inputs)) for other in read]
    for column, other in enumerate(read):
      if split != other and overlaps[split, other][1]:
        rows[split][column] += f", {overlaps[split, other][1]:,} with another label"
  return "## Inputs that stand in two splits\n\n" + _table("of \\ also in", read, rows)


def _overlap(examples: Contents, other: Contents) -> tuple[int, int]:
  """Examples of `one` whose input stands in `other`, and those that stand there under other labels only."""
  shared = np.isin(examples.inputs, other.inputs)
  if examples.label is None or other.label is None:
    return int(shared.sum()), 0
  return int(shared.sum()), int(
    (shared & ~np.isin(_keys(examples.inputs, examples.label), _keys(other.inputs, other.label))).sum()
  )


def _conflicting(examples: Contents) -> int:
  """Examples whose input has another label elsewhere in the split."""
  if examples.label is None:
    return 0
  _, first = np.unique(_keys(examples.inputs, examples.label), return_index=True)
  inputs, labels = np.unique(examples.inputs[first], return_counts=True)
  return int(np.isin(examples.inputs, inputs[labels > 1]).sum())


def _keys(inputs: np.ndarray, label: np.ndarray) -> np.ndarray:
  """One number for each pair of input and label."""
  return inputs + label.astype(np.uint64) * _SPREAD


def _lengths(source: Dataset, read: Mapping[str, Contents]) -> str:
  shapes = {name: shape for examples in read.values() for name, shape in examples.shapes.items()}
  lengths = {split: examples.length for split, examples in read.items() if examples.length is not None}
  if len(lengths) < len(read):
    return f"Every example is an image of {' × '.join(map(str, shapes['image']))}." if "image" in shapes else ""
  everything = np.concatenate(list(lengths.values()))
  rows: dict[str, list[str]] = {}
  if len(everything) and np.ptp(everything):
    measures: dict[str, Callable] = {"shortest": np.min, "median": np.median, "mean": np.mean}
    measures |= {"95th percentile": lambda values: np.percentile(values, 95), "longest": np.max}
    rows = {name: [_number(float(f(v))) if len(v) else "" for v in lengths.values()] for name, f in measures.items()}
  truncated = source.metadata.get("truncated")
  if isinstance(truncated, Mapping):
    rows["truncated"] = [
      _share(truncated[split], len(lengths[split])) if split in truncated else _joined(truncated) for split in read
    ]
  constant = "" if np.ptp(everything) else f"Every example has {everything[0]:,} tokens.\n\n"
  return (constant + (_table("tokens", read, rows) if rows else "")).strip()


def _labels(source: Dataset, read: Mapping[str, Contents]) -> str:
  labels = {split: examples.label for split, examples in read.items() if examples.label is not None}
  if len(labels) < len(read):
    return "The examples have no label."
  classes = max(source.metadata.get("classes", 0), *(int(label.max(initial=-1)) + 1 for label in labels.values()))
  counts = np.stack([np.bincount(label, minlength=classes) for label in labels.values()], axis=1)
  names = [str(name) for name in source.metadata.get("names", range(classes))]
  names += [str(number) for number in range(len(names), classes)]
  totals = counts.sum(axis=0)
  order = (
    np.arange(classes) if classes <= MOST_CLASSES else np.argsort(-counts.sum(axis=1), kind="stable")[:MOST_CLASSES]
  )
  rows = {names[number]: [_share(*pair) for pair in zip(counts[number], totals, strict=True)] for number in order}
  if classes > MOST_CLASSES:
    others = totals - counts[order].sum(axis=0)
    rows[f"{classes - MOST_CLASSES} others"] = [_share(*pair) for pair in zip(others, totals, strict=True)]
  return _table("label", read, rows)


def _table(corner: str, columns: Iterable[str], rows: Mapping[str, Sequence[str]]) -> str:
  lines = [[corner, *columns]] + [[name.replace("|", "\\|").replace("\n", " "), *cells] for name, cells in rows.items()]
  first, *others = (max(len(line[column]) for line in lines) for column in range(len(lines[0])))
  padded = [[line[0].ljust(first), *map(str.rjust, line[1:], others)] for line in lines]
  padded.insert(1, ["-" * first, *("-" * (width - 1) + ":" for width in others)])
  return "\n".join(f"| {' | '.join(line)} |" for line in padded)


def _share(count: int | np.integer, total: int | np.integer) -> str:
  percent = 100 * count / max(total, 1)
  if not count or not total:
    return "0"
  return f"{count:,} ({'< 0.1' if percent < 0.1 else f'{percent:.1f}'} %)"


def _number(value: Any) -> str:
  if isinstance(value, float):
    return f"{value:,.4g}" if value < 1000 else f"{value:,.0f}"
  return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
