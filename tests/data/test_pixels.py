import numpy as np
import pytest

from attention_lab.config import DataConfig
from attention_lab.data import images, pixels
from attention_lab.data.dataset import SPLITS, Dataset


def source_of(image, label):
  splits = {split: images.Images(image, label) for split in SPLITS}
  metadata = {
    "names": ["dark", "light"],
    "classes": 2,
    "image": image.shape[1:],
    "sizes": dict.fromkeys(SPLITS, len(label)),
  }
  return Dataset("tiny", splits, dict.fromkeys(SPLITS, ""), metadata, {"largest class": 0.5})


def test_every_grey_value_is_one_token_row_by_row_and_none_is_padding():
  image = np.arange(512, dtype=np.uint16).astype(np.uint8).reshape(2, 16, 16, 1)
  source = pixels.sequences(source_of(image, np.array([0, 1])))
  batch = source.splits["test"][np.array([1, 0])]
  np.testing.assert_array_equal(batch["tokens"], np.tile(np.arange(1, 257), (2, 1)))
  assert {name: array.dtype for name, array in batch.items()} == dict.fromkeys(("tokens", "length", "label"), np.int32)
  assert batch["label"].tolist() == [1, 0]
  assert batch["length"].tolist() == [256, 256]
  assert (source.metadata["vocabulary"], source.metadata["length"]) == (257, 256)
  assert source.controls == {"largest class": 0.5}


def test_colours_become_their_luminance():
  colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [9, 9, 9], [100, 200, 50]], np.uint8)
  source = pixels.sequences(source_of(colours.reshape(1, 2, 3, 3), np.array([1])))
  grey = [76, 150, 29, 255, 9, 153]  # 0.299 red + 0.587 green + 0.114 blue, to the nearest
  np.testing.assert_array_equal(source.splits["train"][np.array([0])]["tokens"][0] - 1, grey)


def test_the_digits_keep_all_they_hold():
  plain, sequence = images.load(DataConfig()), pixels.load(DataConfig())
  assert sequence.name == "digits/pixels"
  for split in SPLITS:
    rows = np.arange(len(plain.splits[split]))
    batch, tokens = plain.splits[split][rows], sequence.splits[split][rows]["tokens"]
    np.testing.assert_array_equal(np.rint((tokens - 1) * 16 / 255), batch["image"].reshape(len(rows), 64) * 16)
    np.testing.assert_array_equal(batch["label"], sequence.splits[split].arrays["label"])
  assert len(set(sequence.digests.values())) == 3
  assert sequence.controls["largest class"] == plain.controls["largest class"]


def test_an_example_is_described_as_the_image_that_it_was():
  plain, sequence = images.load(DataConfig()), pixels.load(DataConfig())
  assert sequence.splits["test"].describe(3) == plain.splits["test"].describe(3) != sequence.splits["test"].describe(4)


def test_images_of_other_channels_are_refused():
  with pytest.raises(ValueError, match="images of 4 channels"):
    pixels.sequences(source_of(np.zeros((1, 2, 2, 4), np.uint8), np.array([0])))
