"""The user's own text: one UTF-8 file of any name, or every *.txt below a folder, split into train, validation, test.

Ten files or more are split by document (equal files stay together); fewer are put one after another and cut at
80 % and 90 % of the bytes, each cut moved on to the end of its line, or of its word where no line ends nearby.
"""

import dataclasses
import hashlib
import itertools
import os
from collections.abc import Mapping
from pathlib import Path

from attention_lab.data.dataset import SPLITS, validate_path

FEWEST_DOCUMENTS = 10  # for a split by document
HELD_OUT = 0.1  # of the bytes, for validation and for test
FLAG = "--config.data.path"


@dataclasses.dataclass(frozen=True)
class Corpus:
  """Texts by name in each split."""

  name: str
  split: str  # "by topic", "by document", "contiguous" or what a published dataset's splits are
  splits: Mapping[str, Mapping[str, str]]  # split -> {name: text}
  dropped: tuple[str, ...] = ()  # names left out, because other texts contain them
  lines: bool = False  # the end of a line counts as a word


def user_text(path: str) -> Corpus:
  """Reads a file or folder; raises ValueError, naming the flag, for what is missing, unreadable, not UTF-8 or empty."""
  root = validate_path(path)
  texts = {name: text for name, text in _read(root).items() if text.strip()}
  if not texts:
    raise ValueError(f"{FLAG}={path} holds no text; give a UTF-8 file, or a folder with *.txt files that are not empty")
  if len(texts) >= FEWEST_DOCUMENTS:
    groups = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()}
    places = held_out({name: len(text.encode()) for name, text in texts.items()}, groups)
    if len(set(places.values())) == 3:
      splits = {split: {n: texts[n] for n in texts if places[n] == split} for split in SPLITS}
      return Corpus(root.resolve().name, "by document", splits)
  return Corpus(root.resolve().name, "contiguous", _cut(texts))


def held_out(sizes: Mapping[str, int], groups: Mapping[str, str], largest: float = 1.0) -> dict[str, str]:
  """The split of each document: in order of a hash of its group's name, into the emptier of test and validation.

  `sizes` in bytes. A group that would lift a split above HELD_OUT of all bytes goes to train, so that each of the two
  ends at or just below it; so does a group above `largest`, a fraction of a held-out split, lest it dominate one.
  """
  room = HELD_OUT * sum(sizes.values())
  filled = {"test": 0, "validation": 0}
  places: dict[str, str] = {}
  members: dict[str, list[str]] = {}
  for name in sizes:
    members.setdefault(groups[name], []).append(name)
  for group in sorted(members, key=lambda name: hashlib.sha256(name.encode()).hexdigest()):
    size = sum(sizes[name] for name in members[group])
    split = min(filled, key=lambda name: (filled[name], name))
    if filled[split] + size <= room and size <= largest * room:
      filled[split] += size
    else:
      split = "train"
    places |= dict.fromkeys(members[group], split)
  return places


def _read(root: Path) -> dict[str, str]:
  try:
    if root.is_dir():
      return {str(file.relative_to(root)): _decode(file) for file in _files(root)}
    return {root.name: _decode(root)}
  except OSError as error:
    reason = error.strerror or type(error).__name__
    raise ValueError(
      f"{FLAG}={root} cannot be read ({error.filename or root}: {reason}); give a file or folder"
    ) from None


def _files(root: Path) -> list[Path]:
  def fail(error: OSError) -> None:
    raise error

  found = (Path(folder) / name for folder, _, names in os.walk(root, onerror=fail) for name in names)
  return sorted(file for file in found if file.suffix.lower() == ".txt")


def _decode(file: Path) -> str:
  try:
    return file.read_bytes().decode("utf-8")
  except UnicodeDecodeError as error:
    raise ValueError(f"{FLAG}: {file} is not UTF-8 at byte {error.start}; convert it or leave it out") from None


def _cut(texts: Mapping[str, str]) -> dict[str, dict[str, str]]:
  total = sum(len(text.encode()) for text in texts.values())
  cuts = [round(total * part) for part in (0, 1 - 2 * HELD_OUT, 1 - HELD_OUT, 1)]
  bounds = dict(zip(SPLITS, itertools.pairwise(cuts), strict=True))
  splits: dict[str, dict[str, str]] = {split: {} for split in bounds}
  start = 0
  for name, text in texts.items():
    content = text.encode()
    for split, (low, high) in bounds.items():
      piece = content[_boundary(content, low - start) : _boundary(content, high - start)]
      if piece:
        splits[split][name] = piece.decode()
    start += len(content)
  return splits


def _boundary(content: bytes, place: int) -> int:
  """The end of the line, else of the word, else of the character around `place`."""
  if place <= 0 or place >= len(content):
    return min(max(place, 0), len(content))
  reach = place + max(1000, len(content) // 100)
  for mark in (b"\n", b" "):
    found = content.find(mark, place - 1, reach)
    if found >= 0:
      return found + 1
  while place < len(content) and content[place] & 0xC0 == 0x80:
    place += 1
  return place
