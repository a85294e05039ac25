import re

import numpy as np
import pytest

from attention_lab.data import example_hashes, recall
from attention_lab.data.augment import Augmentation, Augmented
from attention_lab.data.buckets import Bucketed
from attention_lab.data.dataset import SPLITS, Arrays, Dataset
from attention_lab.data.folds import fold
from attention_lab.data.images import Images
from attention_lab.data.report import report

ROWS = {  # rows of tokens by their first, and labels
  "train": ([1, 2, 2, 3, 3, 3, 4, 5], [0, 1, 1, 0, 1, 0, 0, 1]),
  "validation": ([2, 3, 6, 7], [1, 0, 2, 0]),
  "test": ([1, 1, 4, 8, 9], [1, 0, 1, 0, 0]),
}


def text_source(metadata=None, rows=ROWS):
  splits = {}
  for split, (first, label) in rows.items():
    length = 1 + np.arange(len(first)) % 3
    tokens = np.where(np.arange(4) < 3, np.array(first)[:, None], 0)
    arrays = {"tokens": tokens.astype(np.int32), "label": np.array(label, np.int32)}
    splits[split] = Arrays(arrays | ({"length": length.astype(np.int32)} if metadata is None else {}))
  return Dataset("made", splits, {split: f"{split:0>16}" for split in splits}, metadata or {}, {})


def image_source(count=12, classes=3):
  pixels = np.arange(count * 4, dtype=np.uint8).reshape(count, 2, 2, 1)
  split = Images(pixels, np.arange(count) % classes)
  return Dataset("squares", dict.fromkeys(SPLITS, split), dict.fromkeys(SPLITS, "d" * 16), {}, {})


def table(text, row):
  """The cells of the first row of that name."""
  return [cell.strip() for cell in re.search(rf"^\| {re.escape(row)} *\|(.*)\|$", text, re.M).group(1).split("|")]


def plain(metadata=None):
  return report(text_source(metadata or {"classes": 3}))


def test_sizes_repeats_and_digests_are_those_of_each_split():
  text = plain()
  assert table(text, "") == list(SPLITS)
  assert table(text, "examples") == ["8", "4", "5"]
  assert table(text, "repeats of an earlier input") == ["3 (37.5 %)", "0", "1 (20.0 %)"]
  assert table(text, "input under another label too") == ["3 (37.5 %)", "0", "2 (40.0 %)"]
  assert table(text, "digest") == ["`00000000000train`", "`000000validation`", "`000000000000test`"]


def test_overlap_is_counted_for_each_pair_of_splits_with_those_of_another_label():
  text = plain()
  shared = text[text.index("## Inputs that stand") :]
  assert table(shared, "train") == ["–", "5 (62.5 %), 1 with another label", "2 (25.0 %), 1 with another label"]
  assert table(shared, "validation") == ["2 (50.0 %)", "–", "0"]
  assert table(shared, "test") == ["3 (60.0 %), 2 with another label", "0", "–"]
  assert "3 (60.0 %) of the test inputs also stand in train, 2 of them with another label." in text
  assert "2 (50.0 %) of the validation inputs also stand in train." in text
  assert "of the train inputs also stand" not in text
  assert "1 (25.0 %) of the validation examples have a label that train lacks." in text


def test_splits_without_overlap_are_said_to_have_none():
  text = report(text_source({"classes": 2}, {s: ([10 * n + 1, 10 * n + 2], [0, 1]) for n, s in enumerate(SPLITS)}))
  assert "**No input stands in two splits.**" in text
  assert "## Inputs that stand" not in text


def test_lengths_come_from_the_split_with_the_truncated_beside_them():
  source = text_source()
  text = report(
    Dataset("made", source.splits, source.digests, {"truncated": {"train": 2, "validation": 0, "test": 1}}, {})
  )
  assert table(text, "shortest") == ["1", "1", "1"]
  assert table(text, "median") == ["2", "1.5", "2"]
  assert table(text, "mean") == ["1.875", "1.75", "1.8"]
  assert table(text, "longest") == ["3", "3", "3"]
  assert table(text, "truncated") == ["2 (25.0 %)", "0", "1 (20.0 %)"]


def test_labels_are_counted_by_name_and_a_name_cannot_break_the_table():
  text = plain({"classes": 3, "names": ["good", "a|b", "bad"]})
  assert table(text, "good") == ["4 (50.0 %)", "2 (50.0 %)", "3 (60.0 %)"]
  assert "| a\\|b" in text
  assert table(text, "bad") == ["0", "1 (25.0 %)", "0"]


def test_of_many_classes_the_largest_are_shown_and_the_others_together():
  split = Arrays(
    {"tokens": np.arange(130, dtype=np.int32)[:, None], "label": np.repeat(np.arange(26), 5).astype(np.int32)}
  )
  more = Arrays({"tokens": np.arange(9, dtype=np.int32)[:, None], "label": np.full(9, 25, np.int32)})
  text = report(Dataset("many", {"train": split, "test": more}, {}, {}, {}))
  labels = text[text.index("## Labels") :]
  assert table(labels, "25") == ["5 (3.8 %)", "9 (100.0 %)"]
  assert table(labels, "6 others") == ["30 (23.1 %)", "0"]
  assert labels.count("\n| ") == 23


def test_images_are_told_by_their_size_and_recall_by_its_one_length():
  assert "Every example is an image of 2 × 2 × 1." in report(image_source())
  text = report(recall.generate(length=16, pairs=2, sizes=(50, 10, 10)))
  assert "Every example has 16 tokens." in text
  assert "The examples have no label." in text
  assert "- chance: 0.0625" in text


def test_windows_of_a_stream_count_their_targets_and_packed_rows_their_documents_tokens():
  tokens = np.ones((2, 5), np.int32)
  mask = np.array([[1, 1, 1, 1], [1, 0, 0, 0]], np.float32)
  assert example_hashes.read(Arrays({"tokens": tokens, "mask": mask})).length.tolist() == [4, 1]
  segments = np.array([[1, 1, 2, 2, 0], [1, 0, 0, 0, 0]], np.int32)
  assert example_hashes.read(Arrays({"tokens": tokens, "segments": segments})).length.tolist() == [4, 1]


def test_a_fold_is_said_and_its_truncated_are_those_of_both_together():
  source = text_source({"classes": 3, "truncated": {"train": 2, "validation": 1, "test": 0}})
  text = report(fold(source, 2, 1))
  assert "- validation is part 1 (of 0 to 1) of train and validation" in text
  assert table(text, "truncated") == ["3 in both", "3 in both", "0"]


def test_what_the_loader_says_of_each_split_is_repeated():
  origin = {"train": "as published", "validation": "a tenth of train", "test": "as published"}
  text = plain({"classes": 3, "origin": origin, "words": {"train": 1234, "validation": 5, "test": 6}, "lossless": True})
  assert "- validation: a tenth of train" in text
  assert "- lossless: True" in text
  assert table(text, "words") == ["1,234", "5", "6"]


def test_a_wrapped_split_is_reported_as_the_split_inside():
  source = text_source()
  lengths = {name: np.full(len(split), 3 + (name == "test")) for name, split in source.splits.items()}
  wrapped = {name: Bucketed(split, lengths[name], (3, 4), ("tokens",)) for name, split in source.splits.items()}
  assert report(Dataset("made", wrapped, source.digests, source.metadata, {})) == report(source)
  images = image_source()
  drawn = {name: Augmented(split, Augmentation(flip=True)) for name, split in images.splits.items()}
  assert report(Dataset("squares", drawn, images.digests, {}, {})) == report(images)


@pytest.mark.parametrize("name", sorted(example_hashes.ASIDE))
def test_what_is_no_input_makes_no_two_inputs_differ(name):
  tokens = np.ones((3, 2), np.int32)
  read = example_hashes.read(Arrays({"tokens": tokens, name: np.arange(6).reshape(3, 2)}))
  assert len(set(read.inputs.tolist())) == 1
  assert len(set(read.whole.tolist())) == 3


def test_hashes_do_not_depend_on_the_chunk_in_which_an_example_is_read(monkeypatch):
  tokens = np.random.default_rng(0).integers(0, 5, (50, 4)).astype(np.int32)
  whole = example_hashes.read(Arrays({"tokens": tokens}))
  monkeypatch.setattr(example_hashes, "_ROWS", 7)
  np.testing.assert_array_equal(example_hashes.read(Arrays({"tokens": tokens})).inputs, whole.inputs)
  assert len(set(whole.inputs.tolist())) == len({tuple(row) for row in tokens.tolist()})
