import numpy as np
import pytest
from PIL import Image

from attention_lab.data import augment
from attention_lab.data.augment import Augmentation, Augmented
from attention_lab.data.images import Images
from attention_lab.data.pipeline import evaluation_batches, train_batches

RNG = np.random.default_rng(0)
NOISE = Images(RNG.integers(1, 256, (40, 6, 5, 1)).astype(np.uint8), RNG.integers(0, 3, 40))
VALUES = 5 * np.arange(50)
FLAT = Images(np.broadcast_to(VALUES[:, None, None, None], (50, 8, 8, 3)).astype(np.uint8), np.arange(50))
ALL = np.arange(40)


def drawn(split, step=0, seed=0, **settings):
  return Augmented(split, Augmentation(**settings)).augmented(np.arange(len(split)), seed, step)


@pytest.mark.parametrize(
  "settings",
  [{"crop": 2}, {"flip": True}, {"randaugment": 2}, {"mixup": 0.4}, {"cutmix": 1.0}],
  ids=lambda s: next(iter(s)),
)
def test_a_batch_is_a_function_of_seed_and_step_and_both_matter(settings):
  first, again = drawn(NOISE, **settings), drawn(NOISE, **settings)
  assert all(first[name].tobytes() == again[name].tobytes() for name in first)
  for other in (drawn(NOISE, step=1, **settings), drawn(NOISE, seed=1, **settings)):
    assert not np.array_equal(first["image"], other["image"])
  assert first["image"].dtype == np.float32
  assert first["image"].shape == (40, 6, 5, 1)
  assert first["image"].min() >= 0
  assert first["image"].max() <= 1
  np.testing.assert_array_equal(first["label"], NOISE.arrays["label"])


def test_a_cropped_image_is_the_image_moved_with_black_behind_it_and_every_move_occurs():
  plain = np.pad(NOISE[ALL]["image"], ((0, 0), (1, 1), (1, 1), (0, 0)))
  moves = set()
  for step in range(4):
    for index, image in enumerate(drawn(NOISE, step, crop=1)["image"]):
      offsets = [
        (y, x) for y in range(3) for x in range(3) if np.array_equal(plain[index, y : y + 6, x : x + 5], image)
      ]
      assert len(offsets) == 1
      moves.add(offsets[0])
  assert len(moves) == 9


def test_about_half_of_the_images_are_mirrored_and_the_others_are_as_they_were():
  plain, images = NOISE[ALL]["image"], drawn(NOISE, flip=True)["image"]
  mirrored = (images == plain[:, :, ::-1]).all(axis=(1, 2, 3))
  np.testing.assert_array_equal(mirrored, ~(images == plain).all(axis=(1, 2, 3)))
  assert 8 <= mirrored.sum() <= 32


def test_switching_one_on_leaves_the_draws_of_the_others():
  alone, both = drawn(NOISE, crop=2)["image"], drawn(NOISE, crop=2, flip=True)["image"]
  same = (both == alone).all(axis=(1, 2, 3))
  np.testing.assert_array_equal(both[~same], alone[~same][:, :, ::-1])
  assert same.any()


def test_mixup_is_the_weighted_sum_of_two_images_in_the_weight_that_the_batch_carries():
  batch = drawn(FLAT, mixup=1.0)
  assert batch["mix"].dtype == np.float32
  assert batch["label_b"].dtype == np.int32
  expected = (batch["mix"] * VALUES[batch["label"]] + (1 - batch["mix"]) * VALUES[batch["label_b"]]) / 255
  np.testing.assert_allclose(batch["image"], np.broadcast_to(expected[:, None, None, None], (50, 8, 8, 3)), atol=1e-6)
  assert sorted(batch["label_b"]) == list(range(50))
  assert np.ptp(batch["mix"]) > 0.5


def test_cutmix_pastes_one_box_and_its_weight_is_the_area_that_stays():
  batch = drawn(FLAT, cutmix=1.0)
  pixels = np.rint(batch["image"][..., 0] * 255).astype(int)
  partial = 0
  for image, label, other, mix in zip(pixels, batch["label"], batch["label_b"], batch["mix"], strict=True):
    box = image == VALUES[other]
    assert ((image == VALUES[label]) | box).all()
    if label != other:
      np.testing.assert_array_equal(box, np.outer(box.any(axis=1), box.any(axis=0)))
      assert mix == pytest.approx(1 - box.mean(), abs=1e-6)
      partial += 0 < mix < 1
  assert partial > 25


def test_with_both_each_example_takes_one_of_them():
  batch = drawn(FLAT, mixup=100.0, cutmix=1.0)
  flat = np.ptp(batch["image"], axis=(1, 2, 3)) < 1e-6
  summed = flat & (abs(batch["mix"] - 0.5) < 0.2)
  assert 10 <= summed.sum() <= 40
  assert (~flat).sum() >= 10


def test_alpha_decides_how_even_the_mixture_is():
  for alpha, low, high in ((0.01, 0.45, 0.5), (1000.0, 0.0, 0.05)):
    away = abs(drawn(FLAT, mixup=alpha)["mix"] - 0.5)
    assert low <= np.median(away) <= high


def test_training_batches_are_drawn_and_evaluation_and_reading_by_index_are_plain():
  split = Augmented(NOISE, Augmentation(crop=1, mixup=0.2))
  batch = next(train_batches(split, 8, seed=3))
  plain = next(train_batches(NOISE, 8, seed=3))
  np.testing.assert_array_equal(batch["label"], plain["label"])
  assert not np.array_equal(batch["image"], plain["image"])
  assert batch.keys() == {"image", "label", "label_b", "mix"}
  np.testing.assert_array_equal(next(evaluation_batches(split, 40))["image"], NOISE[ALL]["image"])
  assert len(split) == 40


def test_without_mixture_there_is_no_second_label():
  assert drawn(NOISE, crop=1).keys() == {"image", "label"}
  assert not Augmentation()
  assert Augmentation(flip=True)


def test_magnitude_0_changes_at_most_the_contrast_that_has_no_magnitude():
  grey = NOISE[ALL[:1]]["image"]
  picture = Image.fromarray(np.rint(grey[0, ..., 0] * 255).astype(np.uint8))
  for name in set(augment.OPERATIONS) - {"autocontrast", "equalize"}:
    np.testing.assert_array_equal(np.asarray(augment.operate(picture, name, 0.0)), np.asarray(picture), err_msg=name)


def test_the_strongest_operations_are_those_of_autoaugment():
  row = np.arange(0, 331, dtype=np.int64) % 256
  picture = Image.fromarray(np.broadcast_to(row, (331, 331)).astype(np.uint8))
  after = {name: np.asarray(augment.operate(picture, name, 1.0))[0] for name in augment.OPERATIONS}
  np.testing.assert_array_equal(after["translate_x"], np.pad(row[150:], (0, 150)))
  np.testing.assert_array_equal(after["solarize"], 255 - row)
  np.testing.assert_array_equal(after["posterize"], row & 0xF0)
  np.testing.assert_allclose(after["brightness"], np.minimum(row * 1.9, 255), atol=1)
  np.testing.assert_array_equal(after["identity"], row)
  turned = np.asarray(augment.operate(picture, "translate_y", -1.0))
  assert not turned[:150].any()
  np.testing.assert_array_equal(turned[150], row)
  slanted = np.asarray(augment.operate(picture, "shear_x", 1.0))[100]
  assert abs(slanted[:200].astype(int) - row[30:230]).max() <= 1


def test_operations_are_all_drawn_and_grey_images_have_no_color(monkeypatch):
  seen = []
  monkeypatch.setattr(augment, "operate", lambda picture, name, strength: seen.append((name, strength)) or picture)
  augment.randaugment(NOISE[ALL]["image"], 5, 15, np.random.default_rng(0))
  assert {name for name, _ in seen} == set(augment.OPERATIONS) - {"color"}
  assert {strength for _, strength in seen} == {-0.5, 0.5}
  assert len(seen) == 200
  augment.randaugment(FLAT[ALL]["image"], 5, 15, np.random.default_rng(0))
  assert "color" in {name for name, _ in seen[200:]}


@pytest.mark.parametrize("name, value", [("crop", -1), ("randaugment", -2), ("mixup", float("nan")), ("cutmix", -0.1)])
def test_values_out_of_range_are_refused_naming_the_flag(name, value):
  with pytest.raises(ValueError, match=rf"--config\.data\.{name}={value} .*give 0"):
    Augmentation(**{name: value})


def test_what_does_not_fit_the_images_is_refused_naming_the_flag():
  for magnitude in (-1, 31):
    with pytest.raises(ValueError, match=r"--config\.data\.magnitude=.*give 0 to 30"):
      Augmentation(magnitude=magnitude)
  with pytest.raises(ValueError, match=r"--config\.data\.crop=5 .*less than 5"):
    Augmented(NOISE, Augmentation(crop=5))
  four = Images(np.zeros((2, 4, 4, 4), np.uint8), np.zeros(2, np.int64))
  with pytest.raises(ValueError, match=r"--config\.data\.randaugment=1 on images of 4 channels"):
    Augmented(four, Augmentation(randaugment=1))
