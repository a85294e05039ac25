"""Text to ids and back. The kinds, and how each is trained: `tokenizer_kinds`.

tokenizer = train("bpe", texts, 512)          or kept("run/tokenizer.json", "bpe", texts, 512), which restores
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

__all__ = ["KINDS", "SMALLEST", "SPECIALS", "TOKENIZER_FILE", "Tokenizer", "adopted", "kept", "train"]

TOKENIZER_FILE = "tokenizer.json"
_PIECE = 1 << 20  # characters encoded at a time
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
    found = {name: core.token_to_id(token) for name, token in tokenizer_kinds.special_tokens(self.kind).items()}
    self.special = {name: number for name, number in found.items() if number is not None}
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

  def to_json(self) -> str:
    """What `save` writes."""
    return self._core.to_str()

  def encode(self, text: str) -> Int[np.ndarray, "N"]:
    """The int32 ids of `text`; where lossless, their `byte_lengths` add up to its UTF-8 size."""
    return self.encode_batch([text])[0]

  def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
    """The int32 ids of each text, on all cores."""
    if self.kind == "byte":
      return [np.frombuffer(text.encode(), np.uint8).astype(np.int32) + 1 for text in texts]
    parts: list[list[np.ndarray]] = [[np.zeros(0, np.int32)] for _ in texts]
    for chunk in _chunks(texts):
      encodings = self._core.encode_batch_fast([piece for _, piece in chunk], add_special_tokens=False)
      for (owner, _), encoding in zip(chunk, encodings, strict=True):
        parts[owner].append(np.array(encoding.ids, np.int32))
    return [np.concatenate(part) for part in parts]

  def spans(self, text: str) -> tuple[Int[np.ndarray, "N"], Int[np.ndarray, "N"]]:
    """The ids of `text`, and the UTF-8 byte at which the share of each ends: the shares cover the text.

    What a lossy tokenizer drops before a token belongs to the token's share, at the end of the text to the last one's.
    """
    if self.byte_lengths is not None:
      ids = self.encode(text)
      return ids, np.cumsum(self.byte_lengths[ids], dtype=np.int64)
    ids, ends, start = [np.zeros(0, np.int32)], [np.zeros(0, np.int64)], 0
    for piece in _pieces(text):
      encoding = self._core.encode_batch([piece], add_special_tokens=False)[0]
      places = np.concatenate([[0], np.cumsum(character_bytes(piece))])
      ids.append(np.array(encoding.ids, np.int32))
      ends.append(start + places[np.array([end for _, end in encoding.offsets], np.int64)])
      start += int(places[-1])
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
  """A tokenizer of at most `vocabulary` ids, all told (0 = no limit, for byte, char and word).

  `specials` of SPECIALS; `lines` (word only) makes a line's end a token. Raises ValueError for an unknown kind, and
  for a vocabulary that cannot hold what the kind needs.
  """
  pieces = (piece for text in texts for piece in _pieces(text))
  return Tokenizer(tokenizer_kinds.train(kind, pieces, vocabulary, specials, lines))


def kept(
  file: str | os.PathLike | None,
  kind: str,
  texts: Iterable[str],
  vocabulary: int,
  specials: Sequence[str] = (),
  lines: bool = False,
  start: str | os.PathLike = "",
) -> Tokenizer:
  """The tokenizer in `file` where there is one, else that of the workdir `start`, else a new one; not saved.

  Raises ValueError, naming file and flag, where the file's is of another kind or vocabulary.
  """
  if str(start):
    return adopted(start, file, kind, vocabulary)
  restored = Tokenizer.load(file) if file and Path(file).exists() else None
  if restored is None:
    return train(kind, texts, vocabulary, specials, lines)
  fix = "give that one, or another --workdir"
  if restored.kind != kind:
    raise ValueError(f"--config.data.tokenizer={kind}, but {file} is a tokenizer of kind {restored.kind}; {fix}")
  if restored.vocabulary != vocabulary:
    expected = train(kind, texts, vocabulary, specials, lines).vocabulary
    if restored.vocabulary != expected:
      found = f"{file} has {restored.vocabulary} ids"
      raise ValueError(f"--config.data.vocabulary={vocabulary}, but {found}; give that number or another --workdir")
  return restored


def adopted(folder: str | os.PathLike, file: str | os.PathLike | None, kind: str, vocabulary: int) -> Tokenizer:
  """The tokenizer of another workdir, for one whose own would be `file` (saving is left to the caller).

  Raises ValueError where `folder` has none, where it is of another kind or has more ids; and where `file` is another.
  """
  source, own = Path(folder) / TOKENIZER_FILE, Path(file) if file else None
  there = own is not None and own.exists()
  if not there and not source.exists():
    raise ValueError(f"{folder} has no {TOKENIZER_FILE} to start from; give the --workdir of a run on text")
  first, *others = [Tokenizer.load(path) for path in (own if there else None, source) if path and path.exists()]
  if others and others[0].to_json() != first.to_json():
    raise ValueError(f"{own} is not the tokenizer of {source}; give another --workdir")
  if first.kind != kind or 0 < vocabulary < first.vocabulary:
    found = f"--config.data.tokenizer={first.kind} --config.data.vocabulary={first.vocabulary}"
    raise ValueError(f"{source} has another tokenizer than {kind} with {vocabulary} ids; give {found}")
  return first


def character_bytes(text: str) -> Int[np.ndarray, "N"]:
  """The UTF-8 bytes of each character, 1 to 4."""
  points = np.frombuffer(text.encode("utf-32-le"), np.uint32)
  return 1 + (points > 0x7F).astype(np.int64) + (points > 0x7FF) + (points > 0xFFFF)


def _chunks(texts: Sequence[str]) -> Iterator[list[tuple[int, str]]]:
  """Pieces with the numbers of their texts, about _CHUNK characters at a time."""
  chunk, size = [], 0
  for owner, text in enumerate(texts):
    for piece in _pieces(text):
      chunk.append((owner, piece))
      size += len(piece)
      if size >= _CHUNK:
        yield chunk
        chunk, size = [], 0
  if chunk:
    yield chunk


def _pieces(text: str) -> Iterator[str]:
  """`text` in pieces of about _PIECE characters that end with a line where possible: a long encoding takes memory."""
  start = 0
  while start < len(text):
    cut = text.rfind("\n", start, start + _PIECE) + 1
    end = len(text) if len(text) - start <= _PIECE else (cut or start + _PIECE)
    yield text[start:end]
    start = end
