"""Text to ids and back. The kinds, and how each is trained: `tokenizer_kinds`.

tokenizer = train("bpe", texts, 512)          or restore_or_train("run/tokenizer.json", "bpe", texts, 512)
tokenizer.encode("a text")                    int32 ids in [0, tokenizer.vocabulary)
tokenizer.special                             {"class": 1, …}: those that it was trained with
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from attention_lab.data import tokenizer_kinds
from attention_lab.data.tokenizer_kinds import KINDS, LOSSLESS, SMALLEST, SPECIALS

__all__ = [
  "KINDS",
  "SMALLEST",
  "SPECIALS",
  "TOKENIZER_FILE",
  "Tokenizer",
  "adopt",
  "restore_or_train",
  "tokenizer_file",
  "train",
]

TOKENIZER_FILE = "tokenizer.json"
_PART = 1 << 20  # characters encoded at a time
_CHUNK = 1 << 22  # characters encoded in one call: encodings take memory


class Tokenizer:
  """Text to ids in [0, vocabulary) and back, around a `tokenizers.Tokenizer`; made by `train` or `load`.

  No text encodes to id 0, end of text and padding, except that it is the line's end of words trained with `lines`.
  """

  end_of_text = 0

  def __init__(self, core: Any) -> None:
    core.encode_special_tokens = True
    self._core = core
    self.kind = tokenizer_kinds.kind(core)
    self.vocabulary: int = core.get_vocab_size()
    self.lines = tokenizer_kinds.has_lines(core)
    ids = {name: core.token_to_id(token) for name, token in tokenizer_kinds.special_tokens(self.kind).items()}
    self.special = {name: number for name, number in ids.items() if number is not None}
    self.lossless = self.kind in LOSSLESS
    self.byte_lengths = self._byte_lengths() if self.lossless else None  # UTF-8 bytes of each id, 0 for the special

  @classmethod
  def load(cls, path: str | os.PathLike) -> "Tokenizer":
    """Restores what `save` wrote; raises ValueError if the file is not a tokenizer of one of the kinds."""
    from tokenizers import Tokenizer as Core

    try:
      core = Core.from_str(Path(path).read_text(encoding="utf-8"))
    except Exception as error:  # the library raises bare Exception
      raise ValueError(f"{path} is not a tokenizer ({error}); delete it to train a new one") from None
    try:
      return cls(core)
    except ValueError as error:
      raise ValueError(f"{path} {error}; delete it to train a new one") from None

  def save(self, path: str | os.PathLike) -> None:
    """Writes the tokenizer as JSON, whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    partial.write_text(self.to_json(), encoding="utf-8")
    partial.replace(path)

  def save_new(self, path: str | os.PathLike | None) -> None:
    """Writes the tokenizer where there is a path and no file yet."""
    if path and not Path(path).exists():
      self.save(path)

  def to_json(self) -> str:
    """The JSON that `save` writes."""
    return self._core.to_str()

  def encode(self, text: str) -> Int[np.ndarray, "N"]:
    """The int32 ids of `text`; where lossless, their `byte_lengths` add up to its UTF-8 size."""
    return self.encode_batch([text])[0]

  def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
    """The int32 ids of each text, on all cores."""
    if self.kind == "byte":
      return [np.frombuffer(text.encode(), np.uint8).astype(np.int32) + 1 for text in texts]
    encoded: list[list[np.ndarray]] = [[np.zeros(0, np.int32)] for _ in texts]
    for chunk in _chunks(texts):
      encodings = self._core.encode_batch_fast([part for _, part in chunk], add_special_tokens=False)
      for (owner, _), encoding in zip(chunk, encodings, strict=True):
        encoded[owner].append(np.array(encoding.ids, np.int32))
    return [np.concatenate(ids) for ids in encoded]

  def spans(self, text: str) -> tuple[Int[np.ndarray, "N"], Int[np.ndarray, "N"]]:
    """The ids of `text`, and the UTF-8 byte at which the share of each ends: the shares cover the text.

    What a lossy tokenizer drops before a token belongs to the token's share, at the end of the text to the last one's.
    """
    if self.byte_lengths is not None:
      encoded = self.encode(text)
      return encoded, np.cumsum(self.byte_lengths[encoded], dtype=np.int64)
    ids, ends, start = [np.zeros(0, np.int32)], [np.zeros(0, np.int64)], 0
    for part in _parts(text):
      encoding = self._core.encode_batch([part], add_special_tokens=False)[0]
      offsets = np.concatenate([[0], np.cumsum(character_bytes(part))])
      ids.append(np.array(encoding.ids, np.int32))
      ends.append(start + offsets[np.array([end for _, end in encoding.offsets], np.int64)])
      start += int(offsets[-1])
    joined = np.concatenate(ends)
    joined[-1:] = start
    return np.concatenate(ids), joined

  def decode(self, ids: Int[np.ndarray, "N"]) -> str:
    """The text of `ids` without end of text, class and separator; bytes that are no UTF-8 become U+FFFD."""
    silent = {self.special.get("class"), self.special.get("separator"), None if self.lines else self.end_of_text}
    return self._core.decode([int(i) for i in ids if int(i) not in silent], skip_special_tokens=False)

  def _byte_lengths(self) -> np.ndarray:
    lengths = np.array([len(self._core.id_to_token(i)) for i in range(self.vocabulary)], np.int32)
    lengths[[self.end_of_text, *self.special.values()]] = 0
    return lengths


def train(
  kind: str, texts: Iterable[str], vocabulary: int, specials: Sequence[str] = (), lines: bool = False
) -> Tokenizer:
  """A new tokenizer of at most `vocabulary` ids, all told (0 = no limit, for byte, char and word).

  `specials` of SPECIALS; `lines` (word only) makes a line's end a token. Raises ValueError for an unknown kind, and
  for a vocabulary that cannot hold what the kind needs.
  """
  parts = (part for text in texts for part in _parts(text))
  return Tokenizer(tokenizer_kinds.train(kind, parts, vocabulary, specials, lines))


def tokenizer_file(workdir: str | os.PathLike) -> Path | None:
  """The path of a workdir's tokenizer; None for the workdir "", in which nothing is saved."""
  return Path(workdir) / TOKENIZER_FILE if str(workdir) else None


def restore_or_train(
  file: str | os.PathLike | None,
  kind: str,
  texts: Iterable[str],
  vocabulary: int,
  specials: Sequence[str] = (),
  lines: bool = False,
  start: str | os.PathLike = "",
) -> Tokenizer:
  """The tokenizer in `file` where there is one, else that of the workdir `start`, else a new one; not saved.

  Args:
    file: JSON as `Tokenizer.save` writes it; None or missing = there is none.
    kind: one of KINDS.
    texts: what a new one is trained on.
    vocabulary: ids, all told, as in `train`.
    specials: names of SPECIALS that a new one has.
    lines: as in `train`.
    start: a workdir whose tokenizer is taken over; "" = none.

  Raises:
    ValueError: the restored tokenizer is of another kind or vocabulary; file and flag are named.
  """
  if str(start):
    return adopt(start, file, kind, vocabulary)
  if not file or not Path(file).exists():
    return train(kind, texts, vocabulary, specials, lines)
  restored = Tokenizer.load(file)
  fix = "give that one, or another --workdir"
  if restored.kind != kind:
    raise ValueError(f"--config.data.tokenizer={kind}, but {file} is a tokenizer of kind {restored.kind}; {fix}")
  asked = restored.vocabulary == vocabulary
  if not asked and restored.vocabulary != train(kind, texts, vocabulary, specials, lines).vocabulary:
    ids = f"{file} has {restored.vocabulary} ids"
    raise ValueError(f"--config.data.vocabulary={vocabulary}, but {ids}; give that number or another --workdir")
  return restored


def adopt(folder: str | os.PathLike, file: str | os.PathLike | None, kind: str, vocabulary: int) -> Tokenizer:
  """The tokenizer of another workdir, for one whose tokenizer would be `file` (saving is left to the caller).

  Raises ValueError where `folder` has none, where it is of another kind or has more ids; and where `file` differs.
  """
  source, target = Path(folder) / TOKENIZER_FILE, Path(file) if file else None
  tokenizers = [Tokenizer.load(path) for path in (target, source) if path and path.exists()]
  if not tokenizers:
    raise ValueError(f"--config.pretrained={folder} has no {TOKENIZER_FILE}; give the --workdir of a run on text")
  first = tokenizers[0]
  if any(other.to_json() != first.to_json() for other in tokenizers[1:]):
    raise ValueError(f"{target} is not the tokenizer of {source}; give another --workdir")
  if first.kind != kind or 0 < vocabulary < first.vocabulary:
    flags = f"--config.data.tokenizer={first.kind} --config.data.vocabulary={first.vocabulary}"
    raise ValueError(f"{source} has another tokenizer than {kind} with {vocabulary} ids; give {flags}")
  return first


def character_bytes(text: str) -> Int[np.ndarray, "N"]:
  """The UTF-8 bytes of each character, 1 to 4."""
  points = np.frombuffer(text.encode("utf-32-le"), np.uint32)
  return 1 + (points > 0x7F).astype(np.int64) + (points > 0x7FF) + (points > 0xFFFF)


def _chunks(texts: Sequence[str]) -> Iterator[list[tuple[int, str]]]:
  """Parts of texts with the numbers of their texts, about _CHUNK characters at a time."""
  chunk, size = [], 0
  for owner, text in enumerate(texts):
    for part in _parts(text):
      chunk.append((owner, part))
      size += len(part)
      if size >= _CHUNK:
        yield chunk
        chunk, size = [], 0
  if chunk:
    yield chunk


def _parts(text: str) -> Iterator[str]:
  """`text` in parts of about _PART characters that end with a line where possible: a long encoding takes memory."""
  start = 0
  while start < len(text):
    cut = text.rfind("\n", start, start + _PART) + 1
    end = len(text) if len(text) - start <= _PART else (cut or start + _PART)
    yield text[start:end]
    start = end
