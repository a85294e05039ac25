"""Texts for language modelling, split into train, validation and test: TEXTS, any text dataset of TFDS, the user's own.

  python_docs        the language documentation that every CPython carries in `pydoc_data.topics`; no download
  wikitext2          Wikipedia's good articles in words (Merity et al. 2017); 2,088,628 / 217,646 / 245,569 tokens,
                     each line's end among them, in 33,278 kinds
  tiny_shakespeare   1,115,394 characters of plays (Karpathy 2015) as TFDS splits them, 90 / 5 / 5; nanoGPT's recipe
                     splits 90 / 10, so its validation text is TFDS's validation and test together

Other datasets of TFDS keep the splits that they have. Where one of validation and test is missing, a tenth of the bytes
of train stands in, held out by a hash of the content, so that equal texts stay together.

The user's own text is one UTF-8 file of any name, or every *.txt below a folder that is not hidden; Windows line ends
become plain ones. Ten files or more are split by
document (equal files stay together); fewer are put one after another and cut at 80 % and 90 % of the bytes, each cut
moved on to the end of its line, or of its word where no line ends nearby.

Many topics of `python_docs` are sections of others ("compound" contains "try", "if", "with"): split by topic alone,
half of a held-out topic could be read in training. So a topic that larger ones contain is dropped, topics that share a
paragraph are kept together, and no paragraph of PARAGRAPH characters or more is in two splits. (Lee et al. 2022,
"Deduplicating training data makes language models better".) The text differs between Python versions, and so do its
digests.
"""

import dataclasses
import hashlib
import itertools
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from attention_lab.config import DataConfig
from attention_lab.data import prepared, text_files
from attention_lab.data.dataset import SPLITS, validate_name, validate_path
from attention_lab.data.text_files import FLAG

TEXTS = ("python_docs", "wikitext2", "tiny_shakespeare")
FEWEST_DOCUMENTS = 10  # files, from which on a user's folder is split by document
HELD_OUT = 0.1  # fraction of the bytes, for validation and for test
PARAGRAPH = 80  # characters: shorter paragraphs are headings and stock phrases
LARGEST_TOPIC = 1 / 3  # fraction of a held-out split: one topic must not decide what is measured
_TITLE = re.compile(r" ?= [^=].*[^=] = ?")  # a title is ` = Title = `, a section ` = = Section = = `


@dataclasses.dataclass(frozen=True)
class Corpus:
  """Texts by name in each split."""

  name: str
  split: str  # "by topic", "by document", "contiguous" or what a published dataset's splits are
  splits: Mapping[str, Mapping[str, str]]  # split -> {name: text}
  dropped: tuple[str, ...] = ()  # names left out, because other texts contain them
  lines: bool = False  # the end of a line counts as a word


def load_corpus(data: DataConfig, by_article: bool = False) -> Corpus:
  """The text that a data configuration names.

  Args:
    data: `data.name`, or `data.path` for the user's own text.
    by_article: True makes each article of wikitext2 a document of its own.

  Returns:
    The corpus, its splits in UTF-8 text.

  Raises:
    ValueError: a name that is neither of TEXTS nor prepared in `data.dir`, a dataset without exactly one text feature,
      or a path that cannot be read.
  """
  name = validate_name(data, TEXTS, allow_other=True)
  if name in ("", TEXTS[0]):
    return python_docs() if name else user_text(data.path)
  if name not in TEXTS:
    prepared.check(name, data.dir, TEXTS)
  return _wikitext2(data, by_article) if name == "wikitext2" else _published(data)


def articles(lines: Sequence[str]) -> list[str]:
  """The articles of WikiText, each from the line of its title, which stands between empty ones, to the next title."""
  empty = [not line.strip() for line in lines]
  starts = [
    i
    for i, line in enumerate(lines)
    if _TITLE.fullmatch(line) and (i == 0 or empty[i - 1]) and (i + 1 == len(lines) or empty[i + 1])
  ]
  bounds = sorted({0, *(start for start in starts if not all(empty[:start])), len(lines)})
  return ["".join(f"{line}\n" for line in lines[a:b]) for a, b in itertools.pairwise(bounds)]


def _wikitext2(data: DataConfig, by_article: bool) -> Corpus:
  splits: dict[str, dict[str, str]] = {}
  for split in SPLITS:
    lines = prepared.columns(data.name, split, data.dir, ["text"])["text"]
    texts = articles(lines) if by_article else ["".join(f"{line}\n" for line in lines)]
    splits[split] = {f"{split} {number}": text for number, text in enumerate(texts)}
  return Corpus(data.name, "published", splits, lines=True)


def _published(data: DataConfig) -> Corpus:
  feature = prepared.only(data.name, data.dir, "text")
  available = prepared.splits(data.name, data.dir)
  if "train" not in available:
    raise ValueError(f"--config.data.name={data.name} has no split train; it has {', '.join(available) or 'none'}")
  splits: dict[str, dict[str, str]] = {}
  for split in (split for split in SPLITS if split in available):
    texts = prepared.columns(data.name, split, data.dir, [feature])[feature]
    splits[split] = {f"{split} {number}": text for number, text in enumerate(texts) if text.strip()}
  missing = [split for split in SPLITS if split not in splits]
  if not missing:
    return Corpus(data.name, "published", splits)
  origin = f"published, but {' and '.join(missing)} by content from train"
  assigned = held_out(_sizes(splits["train"]), _content_hashes(splits["train"]))
  for split in missing:
    splits[split] = {name: text for name, text in splits["train"].items() if assigned[name] == split}
  splits["train"] = {name: text for name, text in splits["train"].items() if assigned[name] not in missing}
  return Corpus(data.name, origin, splits)


def held_out(sizes: Mapping[str, int], groups: Mapping[str, str], largest: float = 1.0) -> dict[str, str]:
  """The split of each document: in order of a hash of its group's name, into the emptier of test and validation.

  A group that would lift a split above HELD_OUT of all bytes goes to train, so that each of the two ends at or just
  below it.

  Args:
    sizes: bytes of each document.
    groups: the group of each document; documents of one group go to one split.
    largest: the largest group of a held-out split, as a fraction of that split, lest one group dominate it.

  Returns:
    {document: "train", "validation" or "test"}.
  """
  room = HELD_OUT * sum(sizes.values())
  filled = {"test": 0, "validation": 0}
  splits: dict[str, str] = {}
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
    splits |= dict.fromkeys(members[group], split)
  return splits


def _sizes(texts: Mapping[str, str]) -> dict[str, int]:
  return {name: len(text.encode()) for name, text in texts.items()}


def _content_hashes(texts: Mapping[str, str]) -> dict[str, str]:
  return {name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()}


def python_docs() -> Corpus:
  """The topics by split, about 10 % of the bytes each for validation and test, held out by a hash of their names."""
  from pydoc_data.topics import topics

  return split_topics(topics)


def split_topics(topics: Mapping[str, str]) -> Corpus:
  """Splits texts by name after dropping those whose long paragraphs all occur in larger ones."""
  remaining: dict[str, str] = {}
  owners: dict[str, str] = {}  # paragraph -> the first topic that has it
  groups: dict[str, str] = {}  # topic -> the topic that names its group
  for name, text in sorted(topics.items(), key=lambda item: (-len(item[1]), item[0])):
    shared = {owners[paragraph] for paragraph in paragraphs(text) if paragraph in owners}
    if shared and paragraphs(text) <= owners.keys():
      continue
    joined = {groups[owner] for owner in shared} | {name}
    remaining[name], groups[name] = text, name
    groups |= dict.fromkeys([member for member, group in groups.items() if group in joined], min(joined))
    owners |= dict.fromkeys(paragraphs(text) - owners.keys(), name)
  assigned = held_out(_sizes(remaining), groups, LARGEST_TOPIC)
  splits = {split: {name: remaining[name] for name in sorted(remaining) if assigned[name] == split} for split in SPLITS}
  return Corpus("python_docs", "by topic", splits, dropped=tuple(sorted(topics.keys() - remaining.keys())))


def paragraphs(text: str) -> frozenset[str]:
  """The paragraphs of PARAGRAPH characters or more, however they are indented and wrapped."""
  unwrapped = (" ".join(paragraph.split()) for paragraph in re.split(r"\n\s*\n", text))
  return frozenset(paragraph for paragraph in unwrapped if len(paragraph) >= PARAGRAPH)


def user_text(path: str) -> Corpus:
  """The corpus in a file or folder; ValueError, naming the flag, for a path that is missing, unreadable or empty."""
  root = validate_path(path)
  texts = {name: text for name, text in _read(root).items() if text.strip()}
  if not texts:
    raise ValueError(f"{FLAG}={path} holds no text; give a UTF-8 file, or a folder with *.txt files that are not empty")
  if len(texts) >= FEWEST_DOCUMENTS:
    assigned = held_out(_sizes(texts), _content_hashes(texts))
    if len(set(assigned.values())) == 3:
      splits = {split: {n: texts[n] for n in texts if assigned[n] == split} for split in SPLITS}
      return Corpus(root.resolve().name, "by document", splits)
  return Corpus(root.resolve().name, "contiguous", _cut(texts))


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

  files: list[Path] = []
  for folder, folders, names in os.walk(root, onerror=fail):
    folders[:] = [name for name in folders if not text_files.is_hidden(Path(name))]
    files += [Path(folder) / name for name in names]
  return sorted(file for file in files if file.suffix.lower() == ".txt" and not text_files.is_hidden(file))


def _decode(file: Path) -> str:
  return text_files.decode(file, file.read_bytes()).replace("\r\n", "\n")


def _cut(texts: Mapping[str, str]) -> dict[str, dict[str, str]]:
  """Texts put one after another and cut into contiguous splits."""
  total = sum(_sizes(texts).values())
  cuts = [round(total * part) for part in (0, 1 - 2 * HELD_OUT, 1 - HELD_OUT, 1)]
  bounds = dict(zip(SPLITS, itertools.pairwise(cuts), strict=True))
  splits: dict[str, dict[str, str]] = {split: {} for split in bounds}
  start = 0
  for name, text in texts.items():
    content = text.encode()
    for split, (low, high) in bounds.items():
      part = content[_boundary(content, low - start) : _boundary(content, high - start)]
      if part:
        splits[split][name] = part.decode()
    start += len(content)
  return splits


def _boundary(content: bytes, offset: int) -> int:
  """The end of the line, else of the word, else of the character around a byte offset."""
  if offset <= 0 or offset >= len(content):
    return min(max(offset, 0), len(content))
  reach = offset + max(1000, len(content) // 100)
  for mark in (b"\n", b" "):
    end = content.find(mark, offset - 1, reach)
    if end >= 0:
      return end + 1
  while offset < len(content) and content[offset] & 0xC0 == 0x80:
    offset += 1
  return offset
