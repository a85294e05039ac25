"""Pairs of texts for BERT, from texts whose every word says where it stands."""

import collections
import re
from random import Random

import numpy as np
import pytest

from attention_lab.config import DataConfig
from attention_lab.data import masked, sentence_pairs
from attention_lab.data.labelled import Reading
from attention_lab.data.sentence_pairs import Document
from attention_lab.data.tokenizer import SPECIALS, train

DOCUMENTS, SENTENCES, LENGTH = 60, 8, 80
READING = Reading(tokenizer="byte", vocabulary=0, length=LENGTH)
FRAME = (1, 2)  # class, separator


def text(document):
  sentences = [[f"d{document:02}s{s}w{word}" for word in range(2 + (document + s) % 4)] for s in range(SENTENCES)]
  return " ".join(f"{' '.join(sentence)}." for sentence in sentences)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  path = tmp_path_factory.mktemp("texts")
  for document in range(DOCUMENTS):
    (path / f"{document:02}.txt").write_text(text(document))
  return DataConfig(path=str(path))


@pytest.fixture(scope="module")
def source(folder):
  return masked.load(folder, "", READING)


def pairs(sentence):
  """Of 400 documents of 20 sentences of so many tokens, which are all different."""
  size = 20 * sentence
  bounds = list(range(0, size + 1, sentence))
  documents = [Document(np.arange(size, dtype=np.int32) + 10 + size * n, bounds) for n in range(400)]
  return sentence_pairs.make(documents, 13, FRAME, Random(0))


def texts(arrays, row):
  tokens, types, length = (arrays[name][row] for name in ("tokens", "types", "length"))
  real = np.arange(len(tokens)) < length
  return tokens[real & (types == 0)][1:-1], tokens[real & (types == 1)][:-1]


def test_a_row_is_class_text_separator_text_separator_and_padding(source):
  special = source.metadata["special"]
  for split in source.splits.values():
    arrays = split.arrays
    for row in range(len(split)):
      first, second = texts(arrays, row)
      assert min(len(first), len(second)) >= 1
      frame = [special["class"], *first, special["separator"], *second, special["separator"]]
      assert arrays["length"][row] == len(frame) <= LENGTH
      np.testing.assert_array_equal(arrays["tokens"][row], frame + [0] * (LENGTH - len(frame)))
      assert arrays["types"][row].sum() == len(second) + 1


@pytest.mark.parametrize("sentence", [1, 3, 9])
def test_the_second_text_follows_the_first_or_is_another_documents(sentence):
  arrays = pairs(sentence)
  for row in range(len(arrays["next"])):
    first, second = texts(arrays, row)
    owners = [set((part - 10) // (20 * sentence)) for part in (first, second)]
    assert len(owners[0]) == len(owners[1]) == 1
    assert (owners[0] == owners[1]) == arrays["next"][row]
    assert all(np.all(np.diff(part) == 1) for part in (first, second))
    if arrays["next"][row]:
      assert second[0] == first[-1] + 1 if sentence == 1 else second[0] > first[-1]


def test_documents_stay_in_their_split(source):
  described = [" ".join(map(split.describe, range(len(split)))) for split in source.splits.values()]
  owners = [set(re.findall(r"d(\d\d)s", text)) for text in described]
  assert sum(map(len, owners)) == len(set.union(*owners)) == DOCUMENTS


def test_half_of_the_rows_with_two_sentences_are_followed_by_their_next():
  arrays = pairs(1)
  several = arrays["length"] > 5  # a document's last token has no next
  share, count = arrays["next"][several].mean(), several.sum()
  assert abs(share - 0.5) < 4 * np.sqrt(0.25 / count)
  assert count > 700


def test_what_another_document_displaces_begins_the_next_row():
  arrays, read = pairs(1), []
  for row in range(len(arrays["next"])):
    first, second = texts(arrays, row)
    read.extend(first)
    read.extend(second if arrays["next"][row] else [])
  np.testing.assert_array_equal(read, np.arange(10, 10 + 8000))


def test_texts_too_long_are_cut_as_token_by_token_from_the_longer():
  for a in range(1, 12):
    for b in range(1, 12):
      sizes = [a, b]
      while sum(sizes) > 7:
        sizes[0 if sizes[0] > sizes[1] else 1] -= 1
      runs = [sentence_pairs.Run(n, 5, 5 + size) for n, size in enumerate((a, b))]
      cut = sentence_pairs._cut(*runs, 7, Random(0))
      assert [run.stop - run.start for run in cut] == sizes
      assert all(run.start >= 5 and run.stop <= old.stop for run, old in zip(cut, runs, strict=True))


def test_a_sentence_ends_after_its_last_stop():
  tokenizer = train("wordpiece", ["one two. three?! four"], 300, SPECIALS)
  (document,) = sentence_pairs.documents(["one two. three?! four"], tokenizer)
  parts = [tokenizer.decode(document.tokens[a:b]) for a, b in zip(document.bounds, document.bounds[1:], strict=False)]
  assert [part.replace(" ", "") for part in parts] == ["onetwo.", "three?!", "four"]


def test_held_out_splits_carry_their_masks_and_training_does_not(source):
  special = set(source.metadata["special"].values()) | {0}
  assert set(source.splits["train"].arrays) == {"tokens", "types", "length", "next"}
  for name in ("validation", "test"):
    arrays = source.splits[name].arrays
    eligible = (np.arange(LENGTH) < arrays["length"][:, None]) & ~np.isin(arrays["tokens"], list(special))
    np.testing.assert_array_equal(arrays["chosen"].sum(axis=1), -(-15 * eligible.sum(axis=1) // 100))
    assert not np.any(arrays["chosen"] & ~eligible)
    np.testing.assert_array_equal(arrays["masked"][~arrays["chosen"]], arrays["tokens"][~arrays["chosen"]])


def test_hidden_tokens_are_masked_in_8_of_10_cases_random_in_1_and_themselves_in_1():
  tokens = np.random.default_rng(0).integers(5, 25, (3000, 20)).astype(np.int32)
  tokens_shown, chosen = masked.hidden(np.random.default_rng(1), tokens, np.full(3000, 20), [0, 1, 2, 4], 25, 3)
  shown, true = tokens_shown[chosen], tokens[chosen]
  random = collections.Counter(shown[(shown != 3) & (shown != true)].tolist())
  assert set(random) == set(range(5, 25))
  for share, hits in ((0.8, shown == 3), (0.1 + 0.1 / 20, shown == true)):
    assert abs(hits.mean() - share) < 4 * np.sqrt(share * (1 - share) / len(shown))


def test_the_same_texts_give_the_same_pairs_from_a_new_and_a_restored_tokenizer(folder, source, tmp_path):
  first, again = (masked.load(folder, tmp_path, READING) for _ in range(2))
  assert (tmp_path / "tokenizer.json").exists()
  assert first.digests == again.digests == source.digests
  assert len(set(source.digests.values())) == 3


def test_facts_and_the_unigram_line_are_what_the_arrays_say(source):
  train_arrays, test = source.splits["train"].arrays, source.splits["test"].arrays
  assert source.metadata["tokens"]["test"] == test["length"].sum()
  assert source.metadata["next"]["train"] == pytest.approx(train_arrays["next"].mean(), abs=1e-4)
  special, vocabulary = {0, *source.metadata["special"].values()}, source.metadata["vocabulary"]
  counts = collections.Counter(token for token in train_arrays["tokens"].ravel().tolist() if token not in special)
  total = counts.total() + vocabulary - len(special)
  losses = [-np.log((counts[token] + 1) / total) for token in test["tokens"][test["chosen"]].tolist()]
  assert source.controls["unigram"] == pytest.approx(np.mean(losses))


def test_paragraphs_are_the_documents_of_a_single_file(tmp_path):
  file = tmp_path / "book.txt"
  file.write_text("\n\n".join(text(document) for document in range(DOCUMENTS)))
  source = masked.load(DataConfig(path=str(file)), "", READING)
  assert DOCUMENTS <= sum(source.metadata["documents"].values()) <= DOCUMENTS + 2  # two are cut


def test_what_cannot_make_pairs_is_refused_by_name(folder, tmp_path):
  with pytest.raises(ValueError, match=r"--config\.data\.length=4 is too short"):
    masked.load(folder, "", Reading(tokenizer="word", vocabulary=0, length=4))
  (tmp_path / "one.txt").write_text(" ".join(text(document) for document in range(9)))
  with pytest.raises(ValueError, match="put empty lines between documents"):
    masked.load(DataConfig(path=str(tmp_path / "one.txt")), "", READING)
  with pytest.raises(ValueError, match="all tokens of the validation split are unknown"):
    masked.load(folder, "", Reading(tokenizer="word", vocabulary=0, length=LENGTH))
  train("byte", [], 0).save(tmp_path / "tokenizer.json")
  with pytest.raises(ValueError, match="without the special tokens class"):
    masked.load(folder, tmp_path, Reading(tokenizer="byte", vocabulary=257, length=LENGTH))
