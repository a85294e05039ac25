import numpy as np
import pytest

from attention_lab.data import folds as folding
from attention_lab.data.dataset import Arrays, Dataset, Lazy
from attention_lab.data.folds import View, fold
from attention_lab.data.pipeline import evaluation_batches

CLASSES = 3


class Named(Arrays):
  def __init__(self, arrays, name):
    super().__init__(arrays)
    self.name = name

  def describe(self, index):
    return f"{self.name} {index}"


def source_of(sizes=(40, 13, 9), seed=0, labels=True):
  """Inputs repeat within and across train and validation; a repeat's label may be another."""
  rng = np.random.default_rng(seed)
  splits = {}
  for name, size in zip(("train", "validation", "test"), sizes, strict=True):
    arrays = {"tokens": rng.integers(0, 3, (size, 3)).astype(np.int32)}
    splits[name] = Named(arrays | ({"label": rng.integers(0, CLASSES, size).astype(np.int32)} if labels else {}), name)
  counts = {
    name: np.bincount(split.arrays.get("label", []), minlength=CLASSES).tolist() for name, split in splits.items()
  }
  metadata = {
    "classes": CLASSES,
    "sizes": dict(zip(splits, sizes, strict=True)),
    "truncated": {"train": 5, "validation": 2, "test": 1},
    "held_out": {"validation": ["a"], "test": ["b"]},
  }
  metadata |= {"counts": counts} if labels else {}
  return Dataset("made", splits, dict.fromkeys(splits, "0" * 16), metadata, Lazy({"line": lambda: 0.5}))


def rows_of(split):
  batch = split[np.arange(len(split))]
  return [(*row, label) for row, label in zip(batch["tokens"].tolist(), batch["label"].tolist(), strict=True)]


def inputs_of(split):
  return set(map(tuple, split[np.arange(len(split))]["tokens"].tolist()))


def test_the_parts_are_the_examples_of_train_and_validation_once():
  source = source_of()
  validations = [fold(source, 4, which).splits["validation"] for which in range(4)]
  everything = rows_of(source.splits["train"]) + rows_of(source.splits["validation"])
  assert sorted(row for validation in validations for row in rows_of(validation)) == sorted(everything)
  for which, validation in enumerate(validations):
    assert sorted(rows_of(fold(source, 4, which).splits["train"]) + rows_of(validation)) == sorted(everything)


@pytest.mark.parametrize("labels", [True, False])
def test_no_input_stands_in_train_and_validation_though_it_repeats(labels):
  source = source_of(labels=labels)
  assert inputs_of(source.splits["train"]) & inputs_of(source.splits["validation"])
  for which in range(5):
    folded = fold(source, 5, which).splits
    assert not inputs_of(folded["train"]) & inputs_of(folded["validation"])


def test_parts_and_the_classes_in_them_differ_by_one_different_input_at_most():
  rng = np.random.default_rng(1)
  tokens = np.arange(101, dtype=np.int32)[:, None]
  label = rng.choice(3, 101, p=(0.7, 0.2, 0.1)).astype(np.int32)
  whole = Arrays({"tokens": tokens, "label": label})
  parts = {"train": View([whole], np.arange(80)), "validation": View([whole], np.arange(80, 101)), "test": whole}
  source = Dataset("distinct", parts, dict.fromkeys(parts, ""), {}, {})
  splits = [fold(source, 4, which).splits["validation"] for which in range(4)]
  assert np.ptp([len(split) for split in splits]) <= 1
  counts = [np.bincount(split[np.arange(len(split))]["label"], minlength=3) for split in splits]
  assert (np.ptp(counts, axis=0) <= 1).all()


def test_the_parts_do_not_depend_on_the_order_of_the_examples():
  source = source_of()
  moved = {name: Arrays({k: v[::-1] for k, v in split.arrays.items()}) for name, split in source.splits.items()}
  other = Dataset("moved", moved, source.digests, source.metadata, source.controls)
  for which in range(3):
    ours, theirs = (inputs_of(fold(s, 3, which).splits["validation"]) for s in (source, other))
    assert ours == theirs


def test_digests_sizes_and_facts_are_those_of_the_fold_and_test_is_untouched():
  source = source_of()
  folded = [fold(source, 3, which) for which in range(3)]
  for which, dataset in enumerate(folded):
    assert dataset.splits["test"] is source.splits["test"]
    assert dataset.digests["test"] == source.digests["test"]
    assert dataset.metadata["fold"] == {"folds": 3, "fold": which}
    assert dataset.metadata["sizes"] == {name: len(split) for name, split in dataset.splits.items()}
    for split in ("train", "validation"):
      label = dataset.splits[split][np.arange(len(dataset.splits[split]))]["label"]
      assert dataset.metadata["counts"][split] == np.bincount(label, minlength=CLASSES).tolist()
    assert dataset.metadata["counts"]["test"] == source.metadata["counts"]["test"]
    assert dataset.metadata["truncated"] == {folding.JOINED: 7, "test": 1}
    assert dataset.metadata["held_out"] == {"test": ["b"]}
    assert dataset.digests == fold(source, 3, which).digests
  assert len({dataset.digests[split] for dataset in folded for split in ("train", "validation")}) == 6
  assert source.metadata["truncated"]["train"] == 5


def test_a_folded_split_gathers_any_indices_and_describes_its_examples():
  source = source_of()
  split = fold(source, 3, 1).splits["train"]
  rows, indices = rows_of(split), np.array([len(split) - 1, 0, 7, 7, 3])
  batch = split[indices]
  assert [(*t, label) for t, label in zip(batch["tokens"].tolist(), batch["label"].tolist(), strict=True)] == [
    rows[index] for index in indices
  ]
  for index in (0, len(split) - 1):
    name, row = split.describe(index).split()
    assert rows_of(source.splits[name])[int(row)] == rows[index]
  assert sum(batch["weight"].sum() for batch in evaluation_batches(split, 8)) == len(split)
  assert split[np.arange(0)]["tokens"].shape == (0, 3)


def test_no_folds_are_the_source_itself():
  source = source_of()
  assert fold(source, 0, 0) is source


@pytest.mark.parametrize(
  "folds, which, message",
  [
    (1, 0, r"--config\.data\.folds=1 .*2 or more"),
    (-2, 0, r"--config\.data\.folds=-2 .*2 or more"),
    (0, 1, r"--config\.data\.folds=0 with --config\.data\.fold=1"),
    (3, 3, r"--config\.data\.fold=3 .*give 0 to 2"),
    (3, -1, r"--config\.data\.fold=-1 .*give 0 to 2"),
    (50, 0, r"--config\.data\.folds=50 is more than the \d+ different examples.*give 2 to \d+"),
  ],
)
def test_folds_that_are_none_are_refused_naming_the_flags(folds, which, message):
  with pytest.raises(ValueError, match=message):
    fold(source_of(), folds, which)


def test_splits_of_different_arrays_are_refused():
  source = source_of()
  short = Arrays({"tokens": np.zeros((3, 2), np.int32), "label": np.zeros(3, np.int32)})
  other = Dataset("other", dict(source.splits) | {"validation": short}, source.digests, source.metadata, {})
  with pytest.raises(ValueError, match=r"--config\.data\.folds=2: .*differ in their arrays"):
    fold(other, 2, 0)
