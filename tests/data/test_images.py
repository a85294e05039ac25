from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from attention_lab.config import DataConfig
from attention_lab.data import image_files, images
from attention_lab.data.dataset import SPLITS


@pytest.fixture(scope="module")
def digits():
  return images.load(DataConfig())


def picture(file, value, size=(5, 4), mode="L"):
  file.parent.mkdir(parents=True, exist_ok=True)
  rng = np.random.default_rng(value)
  channels = len(Image.new(mode, (1, 1)).getbands())
  pixels = rng.integers(0, 256, (size[1], size[0], channels), np.uint8)
  Image.fromarray(pixels if channels > 1 else pixels[..., 0], mode).save(file)
  return pixels


def folder(root, per_class=10, classes=("cat", "dog"), mode="L"):
  return {
    (name, i): picture(root / name / f"{i}.png", 100 * c + i, mode=mode)
    for c, name in enumerate(classes)
    for i in range(per_class)
  }


def test_digits_are_what_they_were_when_results_were_written(digits):
  assert digits.digests == {"train": "d17462e4f321ec0f", "validation": "49f7d815a136c595", "test": "1a2f3c3bd8c31e9c"}
  assert digits.metadata["sizes"] == {"train": 1079, "validation": 359, "test": 359}
  assert digits.metadata["image"] == (8, 8, 1)


def test_digits_hold_every_scan_once_and_every_class_in_proportion(digits):
  from sklearn.datasets import load_digits

  bundle = load_digits()
  pixels = np.concatenate([digits.splits[s].arrays["image"][..., 0] for s in SPLITS])
  labels = np.concatenate([digits.splits[s].arrays["label"] for s in SPLITS])
  pairs = sorted((image.tobytes(), int(label)) for image, label in zip(pixels, labels, strict=True))
  published = zip(bundle.images.astype(np.uint8), bundle.target, strict=True)
  assert pairs == sorted((image.tobytes(), int(label)) for image, label in published)
  for split, share in zip(SPLITS, (0.6, 0.2, 0.2), strict=True):
    counts = np.bincount(digits.splits[split].arrays["label"], minlength=10)
    np.testing.assert_allclose(counts / np.bincount(bundle.target), share, atol=0.01)


def test_a_batch_of_digits_is_float32_between_0_and_1(digits):
  batch = digits.splits["train"][np.arange(500)]
  assert (batch["image"].shape, batch["image"].dtype, batch["label"].dtype) == ((500, 8, 8, 1), np.float32, np.int32)
  assert (batch["image"].min(), batch["image"].max()) == (0, 1)
  np.testing.assert_array_equal(batch["image"] * 16, digits.splits["train"].arrays["image"][:500])


def test_the_reference_lines_of_digits_are_chance_and_the_nearest_neighbour(digits):
  assert digits.controls["largest class"] == pytest.approx(0.1, abs=0.02)
  assert 0.97 < digits.controls["nearest neighbour"] < 1


def test_equal_images_stay_in_one_split_even_under_two_labels():
  rng = np.random.default_rng(0)
  unique = rng.integers(0, 256, (60, 2, 2, 1), np.uint8)
  image = np.concatenate([unique, unique[::-1], unique])
  label = np.concatenate([np.arange(60) % 3, np.arange(60)[::-1] % 3, (np.arange(60) + 1) % 3])
  parts = images.split_by_content(image, label)
  assert sorted(np.concatenate(list(parts.values()))) == list(range(180))
  contents = {split: {pixels.tobytes() for pixels in image[rows]} for split, rows in parts.items()}
  assert {split: len(pairs) for split, pairs in contents.items()} == {"train": 36, "validation": 12, "test": 12}
  assert len(set.union(*contents.values())) == 60


def test_a_folder_of_class_folders_is_read_and_split(tmp_path):
  pixels = folder(tmp_path)
  (tmp_path / "cat" / "README.md").write_text("not an image")
  source = images.load(DataConfig(path=str(tmp_path)))
  assert source.metadata["names"] == ["cat", "dog"]
  assert source.metadata["sizes"] == {"train": 12, "validation": 4, "test": 4}
  pairs = {
    (image.tobytes(), int(label))
    for split in SPLITS
    for image, label in zip(*source.splits[split].arrays.values(), strict=True)
  }
  assert pairs == {(array.tobytes(), int(name == "dog")) for (name, _), array in pixels.items()}
  assert source.digests == images.load(DataConfig(path=str(tmp_path))).digests


def test_given_splits_are_kept_and_one_colour_image_makes_all_rgb(tmp_path):
  for number, split in enumerate(SPLITS):
    folder(tmp_path / split, per_class=number + 1)
  colour = picture(tmp_path / "test" / "dog" / "z.png", 7, mode="RGB")
  source = images.load(DataConfig(path=str(tmp_path)))
  assert source.metadata["sizes"] == {"train": 2, "validation": 4, "test": 7}
  assert source.metadata["image"] == (4, 5, 3)
  np.testing.assert_array_equal(source.splits["test"].arrays["image"][-1], colour)
  grey = source.splits["train"].arrays["image"]
  assert (grey == grey[..., :1]).all()


def test_hidden_folders_and_files_are_no_data(tmp_path):
  folder(tmp_path, per_class=6)
  before = images.load(DataConfig(path=str(tmp_path)))
  (tmp_path / ".ipynb_checkpoints").mkdir()
  picture(tmp_path / ".ipynb_checkpoints" / "0-checkpoint.png", 0)
  (tmp_path / "cat" / "._0.png").write_bytes(b"resource fork")
  (tmp_path / "__MACOSX" / "cat").mkdir(parents=True)
  (tmp_path / "__MACOSX" / "._cat.png").write_bytes(b"resource fork")
  (tmp_path / "cat" / "Thumbs.db").write_bytes(b"thumbnails")
  after = images.load(DataConfig(path=str(tmp_path)))
  assert (after.metadata, after.digests) == (before.metadata, before.digests)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_turned_upright_as_its_exif_says(tmp_path, orientation):
  upright = np.arange(48, dtype=np.uint8).reshape(6, 8)
  stored = {  # the pixels that a camera held so has written, Exif 2.3, section 4.6.4
    1: upright,
    2: upright[:, ::-1],
    3: upright[::-1, ::-1],
    4: upright[::-1],
    5: upright.T,
    6: np.rot90(upright),
    7: upright[::-1, ::-1].T,
    8: np.rot90(upright, -1),
  }[orientation]
  exif = Image.Exif()
  exif[ExifTags.Base.Orientation] = orientation
  Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "a.png", exif=exif)
  np.testing.assert_array_equal(image_files.decode(tmp_path / "a.png"), upright)


def test_a_class_named_train_is_a_class(tmp_path):
  folder(tmp_path, classes=("boat", "train"))
  assert images.load(DataConfig(path=str(tmp_path))).metadata["names"] == ["boat", "train"]


def broken(root):
  folder(root)
  (root / "dog" / "3.png").write_bytes((root / "dog" / "3.png").read_bytes()[:60])


def mixed(root):
  folder(root)
  picture(root / "dog" / "x.png", 1, size=(7, 4))


def deep(root):
  folder(root)
  Image.fromarray(np.full((4, 5), 1000, np.uint16)).save(root / "dog" / "16bit.png")


def no_validation(root):
  folder(root / "train")
  folder(root / "test")


def stranger(root):
  for split in SPLITS:
    folder(root / split)
  picture(root / "test" / "bird" / "0.png", 1)


REFUSED = {
  "missing": (lambda root: None, r"nowhere cannot be read \(.*No such file"),
  "mixed": (mixed, r"cat/0\.png is 5x4 and .*dog/x\.png is 7x4"),
  "broken": (broken, r"dog/3\.png cannot be decoded"),
  "deep": (deep, r"16bit\.png cannot be decoded .*8 bits"),
  "one class": (lambda root: folder(root, classes=("cat",)), "has 1 class folders"),
  "no class": (lambda root: root.mkdir(), "has 0 class folders"),
  "too few": (lambda root: folder(root, per_class=2), "class cat has too few"),
  "no validation": (no_validation, "no validation/"),
  "stranger": (stranger, "class bird of test is not in train"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_folder_of_images_is_refused_in_one_line_naming_flag_and_file(tmp_path, case):
  make, message = REFUSED[case]
  make(tmp_path / "nowhere")
  with pytest.raises(ValueError, match=message) as caught:
    images.load(DataConfig(path=str(tmp_path / "nowhere")))
  assert "--config.data.path" in str(caught.value)
  assert "\n" not in str(caught.value)


def test_a_folder_of_mixed_sizes_is_read_with_a_side_and_a_file_is_found_again(tmp_path):
  mixed(tmp_path)
  source = images.load(DataConfig(path=str(tmp_path)), side=4)
  assert source.metadata["image"] == (4, 4, 1)
  assert source.metadata["sizes"] == {"train": 13, "validation": 4, "test": 4}
  split = source.splits["test"]
  file = split.describe(3)
  assert Path(file).parent.name == source.metadata["names"][split.arrays["label"][3]]
  np.testing.assert_array_equal(split.arrays["image"][3][..., 0], image_files.decode(Path(file), 4))
