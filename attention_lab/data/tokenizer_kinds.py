"""The kinds of tokenizers, each trained as a `tokenizers.Tokenizer` whose id 0 no text encodes to.

  byte       id 1 + b for every byte b; lossless
  bpe        byte-level BPE (Sennrich et al. 2016 over bytes, as GPT-2); lossless
  char       the characters of the training texts
  word       their words, the pieces between white space
  wordpiece  pieces of words without case and accents, as BERT (Devlin et al. 2019)

The last three are lossy: what training did not show is `unknown`, white space between words is lost. Ids of words and
characters go by frequency, then alphabet. `SPECIALS` are tokens that no text encodes to either (but <unk>, which a text
of words may hold itself, as WikiText-2 does); asked for, they have the ids after 0, or after the bytes.
"""

import collections
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from attention_lab.config import nearest_hint

END_OF_TEXT = "<|endoftext|>"
SMALLEST = 257  # ids of the smallest lossless vocabulary: the bytes and <|endoftext|>
SPECIALS = ("class", "separator", "mask", "unknown")  # tokens that a model needs and no text encodes to
LOSSLESS = ("byte", "bpe")  # kinds whose ids decode to the very text
FLAG = "--config.data.tokenizer"
_TOKENS = {"class": "[CLS]", "separator": "[SEP]", "mask": "[MASK]", "unknown": "[UNK]"}
_LINE_END = "\n"  # id 0 of words: no word holds white space


def train(kind: str, texts: Iterable[str], vocabulary: int, specials: Sequence[str] = (), lines: bool = False) -> Any:
  """A `tokenizers.Tokenizer` of at most `vocabulary` ids (0 = all, for byte, char and word) with `specials`.

  `lines` (word only): a line's end is a token too, id 0. Raises ValueError for an unknown kind or special, and for a
  vocabulary that cannot hold what the kind needs.
  """
  if kind not in KINDS:
    raise ValueError(f"{FLAG}={kind} is no tokenizer{nearest_hint(kind, KINDS)}; choices: {', '.join(KINDS)}")
  for name in specials:
    if name not in SPECIALS:
      raise ValueError(f"{name} is no special token{nearest_hint(name, SPECIALS)}; choices: {', '.join(SPECIALS)}")
  if lines and kind != "word":
    raise ValueError(f"lines=True is for {FLAG}=word; {kind} has its own way with line ends")
  wanted = tuple(name for name in SPECIALS if name in specials or (name == "unknown" and kind not in LOSSLESS))
  floor = (SMALLEST if kind in LOSSLESS else 2) + len(wanted)
  needed = "bytes and <|endoftext|>" if kind in LOSSLESS else "special tokens and one more"
  if vocabulary < floor and (vocabulary or kind in ("bpe", "wordpiece")):
    raise ValueError(f"--config.data.vocabulary={vocabulary} is too small for {FLAG}={kind}; {needed} need {floor}")
  names = [special_tokens(kind)[name] for name in wanted]
  return _whole_words(texts, vocabulary, names, lines) if kind == "word" else KINDS[kind](texts, vocabulary, names)


def kind(core: Any) -> str:
  """The kind of a tokenizer that `train` made, found from its parts; raises ValueError for any other."""
  model, first, second = type(core.model).__name__, core.id_to_token(0), core.id_to_token(1)
  if model == "WordLevel" and first == _LINE_END:
    return "word"
  kinds = {"WordLevel": "char", "WordPiece": "wordpiece", "BPE": "byte" if second == _characters()[0] else "bpe"}
  if model not in kinds or first != END_OF_TEXT:
    raise ValueError(f"has no {END_OF_TEXT} as id 0")
  return kinds[model]


def has_lines(core: Any) -> bool:
  """True if words were trained with `lines`."""
  return core.id_to_token(0) == _LINE_END and type(core.pre_tokenizer).__name__ == "Split"


def special_tokens(name: str) -> dict[str, str]:
  """The spelling of the special tokens in the files of a kind."""
  if name != "word":
    return _TOKENS
  return {special: f" {token}" for special, token in _TOKENS.items()} | {"unknown": "<unk>"}  # no word holds a space


def _bytes(_texts: Iterable[str], _vocabulary: int, specials: Sequence[str]) -> Any:
  from tokenizers import models

  tokens = [END_OF_TEXT, *_characters(), *specials]
  core = _byte_level(models.BPE({token: number for number, token in enumerate(tokens)}, []))
  core.add_special_tokens([END_OF_TEXT, *specials])
  return core


def _bpe(texts: Iterable[str], vocabulary: int, specials: Sequence[str]) -> Any:
  from tokenizers import models, pre_tokenizers, trainers

  core = _byte_level(models.BPE())
  alphabet = pre_tokenizers.ByteLevel.alphabet()
  trainer = trainers.BpeTrainer(
    vocab_size=vocabulary, special_tokens=[END_OF_TEXT, *specials], initial_alphabet=alphabet, show_progress=False
  )
  core.train_from_iterator(texts, trainer)
  return core


def _byte_level(model: Any) -> Any:
  from tokenizers import Tokenizer, decoders, pre_tokenizers

  core = Tokenizer(model)
  core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  core.decoder = decoders.ByteLevel()
  return core


def _characters() -> list[str]:
  """The character that stands for each byte in a byte-level vocabulary (GPT-2's: printable ones for themselves)."""
  printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
  others = iter(range(0x100, 0x200))
  return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


def _chars(texts: Iterable[str], vocabulary: int, specials: Sequence[str]) -> Any:
  from tokenizers import Regex, decoders, pre_tokenizers

  core = _word_level(_numbered([END_OF_TEXT, *specials], texts, vocabulary, list), _TOKENS["unknown"])
  core.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
  core.decoder = decoders.Fuse()
  return core


def _whole_words(texts: Iterable[str], vocabulary: int, specials: Sequence[str], lines: bool) -> Any:
  from tokenizers import Regex, pre_tokenizers

  core = _word_level(_numbered([_LINE_END, *specials], texts, vocabulary, str.split), special_tokens("word")["unknown"])
  core.pre_tokenizer = (
    pre_tokenizers.Split(Regex(r"\n|\S+"), "removed", invert=True) if lines else pre_tokenizers.WhitespaceSplit()
  )
  return core


def _numbered(
  first: Sequence[str], texts: Iterable[str], vocabulary: int, cut: Callable[[str], list[str]]
) -> dict[str, int]:
  counts: collections.Counter[str] = collections.Counter()
  for text in texts:
    counts.update(cut(text))
  ordered = [token for token in sorted(counts, key=lambda token: (-counts[token], token)) if token not in first]
  tokens = [*first, *ordered][: vocabulary or None]
  return {token: number for number, token in enumerate(tokens)}


def _word_level(numbers: Mapping[str, int], unknown: str) -> Any:
  from tokenizers import Tokenizer, models

  return Tokenizer(models.WordLevel(dict(numbers), unk_token=unknown))


def _pieces(texts: Iterable[str], vocabulary: int, specials: Sequence[str]) -> Any:
  """WordPiece, trained twice: the library orders the letters inside words by a hash map, unless it is given them."""
  corpus, first = list(texts), [END_OF_TEXT, *specials]
  vocabulary_words = sorted({word for text in corpus for word in text.split(" ")})
  letters = sorted(_pieces_once(vocabulary_words, len(first), first).keys() - set(first))
  if vocabulary < len(first) + len(letters):
    needed = f"special tokens and the letters of this text need {len(first) + len(letters)}"
    raise ValueError(f"--config.data.vocabulary={vocabulary} is too small for {FLAG}=wordpiece; {needed}")
  numbers = _pieces_once(corpus, vocabulary, [*first, *letters])
  core = _word_piece(numbers)
  core.add_special_tokens(first)
  return core


def _pieces_once(texts: Sequence[str], vocabulary: int, specials: Sequence[str]) -> dict[str, int]:
  from tokenizers import trainers

  core = _word_piece({})
  trainer = trainers.WordPieceTrainer(vocab_size=vocabulary, special_tokens=list(specials), show_progress=False)
  core.train_from_iterator(texts, trainer)
  return core.get_vocab()


def _word_piece(numbers: Mapping[str, int]) -> Any:
  from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

  core = Tokenizer(models.WordPiece(dict(numbers), unk_token=_TOKENS["unknown"]))
  core.normalizer = normalizers.BertNormalizer(lowercase=True)
  core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
  core.decoder = decoders.WordPiece()
  return core


KINDS: dict[str, Callable[..., Any]] = {
  "byte": _bytes,
  "bpe": _bpe,
  "char": _chars,
  "word": _whole_words,
  "wordpiece": _pieces,
}
