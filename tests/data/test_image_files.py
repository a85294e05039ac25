import re

import numpy as np
import pytest
import tensorflow_datasets as tfds
import tiny_dataset

from attention_lab.config import DataConfig
from attention_lab.data import image_files, images
from attention_lab.data.dataset import SPLITS


def named(folder, **fields):
  return DataConfig(name="tiny", dir=str(folder), **fields)


def test_a_dataset_of_tfds_is_decoded_once_and_a_tenth_of_each_class_becomes_validation(tmp_path):
  _, pixels = tiny_dataset.images(tmp_path, train=[0, 1] * 20, test=[1, 0, 1])
  source = images.load(named(tmp_path))
  assert source.metadata["sizes"] == {"train": 36, "validation": 4, "test": 3}
  assert (source.metadata["names"], source.metadata["image"]) == (["no", "yes"], (6, 5, 1))
  assert source.metadata["origins"] == {"train": "train", "validation": "a tenth of train", "test": "test"}
  assert list(np.bincount(source.splits["validation"].arrays["label"])) == [2, 2]
  np.testing.assert_array_equal(source.splits["test"].arrays["image"], np.stack(pixels["test"]))
  assert source.splits["test"].arrays["label"].tolist() == [1, 0, 1]
  assert source.splits["test"].arrays["image"].dtype == np.uint8
  assert len(set(source.digests.values())) == 3
  assert source.digests == images.load(named(tmp_path)).digests
  for split in ("train", "validation"):
    for index in range(len(source.splits[split])):
      number = int(re.fullmatch(r"image (\d+) of train", source.splits[split].describe(index))[1])
      np.testing.assert_array_equal(source.splits[split].arrays["image"][index], pixels["train"][number])


def test_equal_images_of_train_are_never_cut_apart(tmp_path):
  rows = [{"image": tiny_dataset.png(tiny_dataset.picture(n // 3)), "label": n // 3 % 2} for n in range(60)]
  features = {"image": tfds.features.Image(shape=(6, 5, 1)), "label": tiny_dataset.LABEL}
  tiny_dataset.prepare(tmp_path, "tiny", features, {"train": rows, "test": rows[:1]})
  source = images.load(named(tmp_path))
  parts = [{image.tobytes() for image in source.splits[split].arrays["image"]} for split in ("train", "validation")]
  assert (len(parts[0]), len(parts[1]), len(parts[0] & parts[1])) == (18, 2, 0)
  assert source.metadata["sizes"] == {"train": 54, "validation": 6, "test": 1}


SPLITS_THERE = {
  "all": ({"train": 20, "validation": 4, "test": 3}, (20, 4, 3), ("train", "validation", "test")),
  "no test": ({"train": 20, "validation": 4}, (18, 2, 4), ("train", "a tenth of train", "validation")),
  "train alone": ({"train": 20}, (16, 2, 2), ("train", "a tenth of train", "a tenth of train")),
}


@pytest.mark.parametrize("case", SPLITS_THERE)
def test_the_published_splits_are_kept_and_what_is_missing_is_cut_from_train(tmp_path, case):
  there, sizes, origins = SPLITS_THERE[case]
  tiny_dataset.images(tmp_path, **{split: [n % 2 for n in range(count)] for split, count in there.items()})
  source = images.load(named(tmp_path))
  assert tuple(source.metadata["sizes"][split] for split in SPLITS) == sizes
  assert tuple(source.metadata["origins"][split] for split in SPLITS) == origins


def test_a_test_split_that_was_published_without_labels_is_not_the_test_split(tmp_path):
  tiny_dataset.images(tmp_path, train=[0, 1] * 10, validation=[0, 1], test=[-1, -1, -1])
  assert images.load(named(tmp_path)).metadata["origins"]["test"] == "validation"


def test_images_of_several_sizes_are_read_with_a_side_and_refused_without_one(tmp_path):
  sizes = [(6, 9), (12, 7), (8, 8)] * 4
  pixels = [tiny_dataset.picture(number, (*size, 3)) for number, size in enumerate(sizes)]
  rows = [{"image": tiny_dataset.png(a), "label": n % 2} for n, a in enumerate(pixels)]
  features = {"image": tfds.features.Image(shape=(None, None, 3)), "label": tiny_dataset.LABEL}
  tiny_dataset.prepare(tmp_path, "tiny", features, {"train": rows, "test": rows[:3]})
  with pytest.raises(ValueError, match=r"example 1 of train: images of mixed sizes \(9x6 and 7x12\).*data\.side"):
    images.load(named(tmp_path))
  source = images.load(named(tmp_path), side=8)
  assert source.metadata["image"] == (8, 8, 3)
  np.testing.assert_array_equal(source.splits["test"].arrays["image"][2], pixels[2])


def test_the_reference_line_of_a_dataset_of_tfds_is_a_logistic_regression(tmp_path):
  dark, bright = (np.full((6, 5, 1), value, np.uint8) for value in (0, 200))
  rows = [{"image": tiny_dataset.png((dark, bright)[n % 2] + np.uint8(n)), "label": n % 2} for n in range(40)]
  features = {"image": tfds.features.Image(shape=(6, 5, 1)), "label": tiny_dataset.LABEL}
  tiny_dataset.prepare(tmp_path, "tiny", features, {"train": rows, "test": rows[1:10:2] + rows[:3]})
  controls = images.load(named(tmp_path)).controls
  assert dict(controls) == {"largest class": 2 / 8, "logistic regression on pixels": 1.0}


TINY_REFUSED = {
  "negative": ({"train": [0, 1, -1, 1]}, r"example 2 of train has label -1, outside 0 to 1 \(1 such labels\)"),
  "no train": ({"test": [0, 1]}, "name=tiny has no split train; it has test"),
  "too few": ({"train": [0, 1]}, "train has too few images to cut a tenth of it for validation"),
}


@pytest.mark.parametrize("case", TINY_REFUSED)
def test_a_dataset_of_tfds_that_does_not_fit_is_refused_by_name(tmp_path, case):
  there, message = TINY_REFUSED[case]
  tiny_dataset.images(tmp_path, **there)
  with pytest.raises(ValueError, match=message) as caught:
    images.load(named(tmp_path))
  assert str(caught.value).startswith("--config.data.name=tiny")


def test_an_image_that_cannot_be_decoded_is_named_by_its_number(tmp_path):
  rows = [{"image": tiny_dataset.png(tiny_dataset.picture(n)), "label": n % 2} for n in range(4)]
  features = {"image": tfds.features.Image(shape=(6, 5, 1)), "label": tiny_dataset.LABEL}
  tiny_dataset.prepare(tmp_path, "tiny", features, {"train": [*rows, {"image": b"worn", "label": 0}]})
  with pytest.raises(ValueError, match=r"name=tiny: example 4 of train cannot be decoded \("):
    images.load(named(tmp_path))


def test_what_is_refused_before_anything_is_read(tmp_path, monkeypatch):
  tiny_dataset.images(tmp_path, train=[0, 1] * 6)
  monkeypatch.setattr(image_files, "LIMIT", 12 * 9)
  with pytest.raises(ValueError, match=r"12 images of 5x6 in train are .* GiB decoded.*--config\.data\.side=3 or less"):
    images.load(named(tmp_path))
  with pytest.raises(ValueError, match=r"name=digit is not prepared .*did you mean 'digits'"):
    images.load(DataConfig(name="digit", dir=str(tmp_path)))
  with pytest.raises(ValueError, match=r"--config\.data\.side=-1 is negative"):
    images.load(named(tmp_path), side=-1)
  with pytest.raises(ValueError, match=r"--config\.data\.side=16: digits are 8x8"):
    images.load(DataConfig(), side=16)
