"""Writes a dataset into a folder as TFDS's `download_and_prepare` does, without TensorFlow."""

import io

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

TEXT, LABEL = tfds.features.Text(), tfds.features.ClassLabel(names=["no", "yes"])


def prepare(folder, name, features, examples):
  """`examples`: {split: [example, …]}, kept in order; an image is what `png` gives."""
  encoded = {key for key, feature in features.items() if isinstance(feature, tfds.features.Image)}

  def streams(example):
    return {
      key: io.BytesIO(value) if key in encoded and isinstance(value, bytes) else value for key, value in example.items()
    }

  class Tiny(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    VERSION = tfds.core.Version("1.0.0")
    url_infos = None

    def _info(self):
      described = tfds.features.FeaturesDict(features)
      return tfds.core.DatasetInfo(builder=self, features=described, disable_shuffling=True)

    def _split_generators(self, dl_manager):
      return {split: enumerate(map(streams, rows)) for split, rows in examples.items()}

    def _generate_examples(self):
      raise NotImplementedError

  Tiny.name = name
  tfds.disable_progress_bar()
  builder = Tiny(data_dir=str(folder), file_format="array_record")
  builder.download_and_prepare(download_dir=str(folder / "downloads"))
  return builder


def picture(seed, shape=(6, 5, 1)):
  return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def png(pixels):
  """Encoded, as TFDS keeps it when it is given a file."""
  stream = io.BytesIO()
  Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(stream, "png")
  return stream.getvalue()


def images(folder, name="tiny", shape=(6, 5, 1), **splits):
  """`splits`: labels of each split; picture number i of all, in order of the splits, has seed i."""
  numbers = iter(range(10**6))
  pixels = {split: [picture(next(numbers), shape) for _ in labels] for split, labels in splits.items()}
  examples = {
    split: [{"image": png(a), "label": label} for a, label in zip(pixels[split], labels, strict=True)]
    for split, labels in splits.items()
  }
  return prepare(folder, name, {"image": tfds.features.Image(shape=shape), "label": LABEL}, examples), pixels
