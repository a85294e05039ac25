import json
import subprocess
import sys

import numpy as np
import pytest

from attention_lab.data import tokenizer as tokenizers
from attention_lab.data.tokenizer import KINDS, SMALLEST, SPECIALS, Tokenizer, adopt, restore_or_train, train

PROSE = (
  "The quick brown fox, naïve and 日本, jumps over <|endoftext|> the lazy [CLS] dog.\r\n\tAnd again\u00a0…  twice.\n"
)
SAMPLES = (PROSE, "", "ünseen \x00 bytes 🙂", "<|endoftext|>", " [CLS] \n\n[MASK] ")


@pytest.mark.parametrize("kind", ["byte", "bpe"])
@pytest.mark.parametrize("specials", [(), SPECIALS])
def test_a_lossless_tokenizer_gives_back_any_text_and_counts_its_bytes(kind, specials):
  tokenizer = train(kind, [PROSE], SMALLEST + 20, specials)
  for sample in SAMPLES:
    ids = tokenizer.encode(sample)
    assert ids.dtype == np.int32
    assert tokenizer.decode(ids) == sample
    assert tokenizer.byte_lengths[ids].sum() == len(sample.encode())


@pytest.mark.parametrize("kind", KINDS)
def test_no_text_encodes_to_end_of_text_or_to_a_special_token_but_unknown(kind):
  tokenizer = train(kind, [PROSE * 2], 400, SPECIALS)
  never = {tokenizer.end_of_text, *tokenizer.special.values()} - {tokenizer.special["unknown"]}
  assert len(never) == 4
  for sample in SAMPLES:
    assert not never & set(tokenizer.encode(sample).tolist())


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_tokenizer_comes_back_as_the_same_kind_with_the_same_ids(tmp_path, kind):
  for lines in {False, kind == "word"}:
    first = train(kind, [PROSE * 2], 400, ("class", "mask"), lines=lines)
    first.save(tmp_path / "tokenizer.json")
    second = Tokenizer.load(tmp_path / "tokenizer.json")
    for name in ("kind", "vocabulary", "special", "lines", "lossless"):
      assert getattr(first, name) == getattr(second, name)
    assert (first.kind, first.lines) == (kind, lines)
    for sample in SAMPLES:
      np.testing.assert_array_equal(first.encode(sample), second.encode(sample))


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_of_texts_is_encoded_as_each_alone(monkeypatch, kind):
  tokenizer = train(kind, [PROSE * 2], 400)
  alone = [tokenizer.encode(sample) for sample in SAMPLES]
  monkeypatch.setattr(tokenizers, "_CHUNK", 30)
  for ids, other in zip(alone, tokenizer.encode_batch(SAMPLES), strict=True):
    np.testing.assert_array_equal(ids, other)


@pytest.mark.parametrize("kind", KINDS)
def test_a_long_text_is_encoded_in_pieces_whose_spans_cover_it(monkeypatch, kind):
  monkeypatch.setattr(tokenizers, "_PART", 50)
  tokenizer = train(kind, [PROSE * 3], 400)
  for sample in (PROSE * 3, "x" * 120, "日" * 120, " 🙂  ünseen \n"):
    ids, ends = tokenizer.spans(sample)
    np.testing.assert_array_equal(ids, tokenizer.encode(sample))
    assert ends[-1] == len(sample.encode())
    assert (np.diff(ends, prepend=0) >= 0).all()
    if tokenizer.lossless:
      assert tokenizer.decode(ids) == sample


def test_the_bytes_are_the_ids_of_a_byte_tokenizer():
  tokenizer = train("byte", (), 0)
  text = "Aé\x00\n"
  np.testing.assert_array_equal(tokenizer.encode(text), np.array([*text.encode()]) + 1)
  assert (tokenizer.vocabulary, tokenizer.special) == (SMALLEST, {})
  assert train("byte", (), 0, ("class",)).special == {"class": SMALLEST}


def test_words_are_numbered_by_frequency_then_alphabet_and_others_are_unknown():
  tokenizer = train("word", ["b a  c\nc", "d c a b"], 5)
  assert tokenizer.vocabulary == 5
  np.testing.assert_array_equal(tokenizer.encode("c a b d\n c"), [2, 3, 4, 1, 2])
  assert tokenizer.decode(np.array([2, 3, 4])) == "c a b"
  assert train("word", ["b a c\nc", "d c a b"], 0).vocabulary == 6


def test_the_end_of_a_line_is_a_word_where_asked_and_the_literal_unknown_is_unknown():
  tokenizer = train("word", [" a <unk> b \n\n a \n"], 0, lines=True)
  ids, ends = tokenizer.spans(" a <unk> z \n\n b\n")
  np.testing.assert_array_equal(ids, [2, 1, 1, 0, 0, 3, 0])
  np.testing.assert_array_equal(ends, [2, 8, 10, 12, 13, 15, 16])
  assert tokenizer.vocabulary == 4


def test_characters_are_ids_and_come_back():
  tokenizer = train("char", ["hello\n"], 0)
  assert tokenizer.decode(tokenizer.encode("hell\noo")) == "hell\noo"
  np.testing.assert_array_equal(tokenizer.encode("lhz"), [2, 5, tokenizer.special["unknown"]])


def test_word_pieces_ignore_case_and_accents():
  tokenizer = train("wordpiece", ["naive cafes are playing, a cafe played"] * 5, 60)
  np.testing.assert_array_equal(tokenizer.encode("Naïve CAFÉ"), tokenizer.encode("naive cafe"))
  assert tokenizer.decode(tokenizer.encode("naive cafe")) == "naive cafe"
  assert tokenizer.vocabulary <= 60


def test_training_word_pieces_is_the_same_in_every_process():
  code = "from attention_lab.data.tokenizer import train; from pydoc_data.topics import topics; "
  code += "print(hash(train('wordpiece', list(topics.values())[:8], 400).to_json()))"
  runs = [[sys.executable, "-c", code]] * 2
  outputs = {subprocess.run(run, capture_output=True, check=True, env={"PYTHONHASHSEED": "0"}).stdout for run in runs}
  assert len(outputs) == 1


@pytest.mark.parametrize(
  "kind, vocabulary, floor", [("bpe", 256, 257), ("byte", 100, 257), ("char", 2, 3), ("word", 1, 3)]
)
def test_a_vocabulary_that_cannot_hold_the_kind_is_refused(kind, vocabulary, floor):
  with pytest.raises(ValueError, match=rf"--config\.data\.vocabulary={vocabulary} is too small .*={kind}; .* {floor}"):
    train(kind, [PROSE], vocabulary)


def test_unknown_kinds_and_vocabularies_below_the_letters_are_refused():
  with pytest.raises(
    ValueError, match=r"--config\.data\.tokenizer=wrd is no tokenizer, did you mean 'word'\?; choices"
  ):
    train("wrd", [PROSE], 300)
  with pytest.raises(ValueError, match=r"vocabulary=20 is too small .*letters of this text need"):
    train("wordpiece", [PROSE], 20)
  with pytest.raises(ValueError, match="msk is no special token, did you mean 'mask'"):
    train("bpe", [PROSE], 300, ("msk",))
  with pytest.raises(ValueError, match=r"lines=True is for --config\.data\.tokenizer=word"):
    train("bpe", [PROSE], 300, lines=True)


def test_a_restored_tokenizer_of_another_kind_or_vocabulary_is_refused(tmp_path):
  file = tmp_path / "tokenizer.json"
  train("word", ["a b c"], 0).save(file)
  for text, vocabulary in (("a b c", 0), ("x", 5)):
    assert restore_or_train(file, "word", [text], vocabulary).vocabulary == 5
  with pytest.raises(ValueError, match=r"--config\.data\.tokenizer=char, but .*tokenizer\.json .* of kind word"):
    restore_or_train(file, "char", ["a b c"], 0)
  with pytest.raises(ValueError, match=r"--config\.data\.vocabulary=4, but .*tokenizer\.json has 5 ids"):
    restore_or_train(file, "word", ["a b c"], 4)


def test_the_tokenizer_of_another_workdir_is_taken_whole_or_refused(tmp_path):
  train("word", ["a b c"], 0).save(tmp_path / "old" / "tokenizer.json")
  target = tmp_path / "new" / "tokenizer.json"
  adopt(tmp_path / "old", target, "word", 5).save(target)
  assert target.read_bytes() == (tmp_path / "old" / "tokenizer.json").read_bytes()
  assert adopt(tmp_path / "gone", target, "word", 5).vocabulary == 5
  with pytest.raises(ValueError, match=r"another tokenizer than word with 4 ids; give .*vocabulary=5"):
    adopt(tmp_path / "old", None, "word", 4)
  with pytest.raises(ValueError, match=r"gone has no tokenizer\.json"):
    adopt(tmp_path / "gone", None, "word", 5)
  train("word", ["a b x"], 0).save(target)
  with pytest.raises(ValueError, match="is not the tokenizer of"):
    adopt(tmp_path / "old", target, "word", 5)


@pytest.mark.parametrize("content", ["{}", "[", json.dumps({"model": {"type": "Unigram", "vocab": [["a", 0.0]]}})])
def test_a_file_that_is_no_tokenizer_of_a_known_kind_is_refused(tmp_path, content):
  file = tmp_path / "tokenizer.json"
  file.write_text(content)
  with pytest.raises(ValueError, match=r"tokenizer\.json .*; delete it to train a new one") as caught:
    Tokenizer.load(file)
  assert "\n" not in str(caught.value)
