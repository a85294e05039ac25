import numpy as np
import pytest

from attention_lab.data.buckets import Bucketed, turns, widths
from attention_lab.data.dataset import Arrays

LENGTHS = np.array([3, 8, 1, 4, 5, 2, 8])
TOKENS = np.where(np.arange(8) < LENGTHS[:, None], 10 * np.arange(1, 8)[:, None] + np.arange(8), 0).astype(np.int32)
SPLIT = Arrays({"tokens": TOKENS, "length": LENGTHS.astype(np.int32), "box": np.zeros((7, 8, 2), np.float32)})


def bucketed(cut=("tokens",)):
  return Bucketed(SPLIT, LENGTHS, (2, 4, 6, 8), cut)


def test_every_example_is_in_the_bucket_of_the_smallest_width_that_holds_it():
  split = bucketed()
  assert split.widths == (2, 4, 6, 8)
  assert [bucket.tolist() for bucket in split.buckets] == [[2, 5], [0, 3], [4], [1, 6]]
  assert len(split) == 7
  few = Bucketed(SPLIT, LENGTHS, (100, 8), ())
  assert few.widths == (8,)
  assert [bucket.tolist() for bucket in few.buckets] == [list(range(7))]


def test_a_batch_loses_padding_alone_and_only_in_the_arrays_that_are_cut():
  split = bucketed()
  for width, bucket in zip(split.widths, split.buckets, strict=True):
    batch = split[bucket]
    assert batch["tokens"].shape == (len(bucket), width)
    assert batch["box"].shape == (len(bucket), 8, 2)
    np.testing.assert_array_equal(batch["tokens"], TOKENS[bucket, :width])
    assert not TOKENS[bucket, width:].any()
    np.testing.assert_array_equal(batch["length"], LENGTHS[bucket])


def test_a_mixed_batch_is_as_wide_as_its_widest_bucket():
  batch = bucketed(("tokens", "box"))[np.array([2, 0, 5])]
  np.testing.assert_array_equal(batch["tokens"], TOKENS[[2, 0, 5], :4])
  assert batch["box"].shape == (3, 4, 2)


def test_widths_double_up_to_the_length_itself():
  assert widths(400) == (32, 64, 128, 256, 400)
  assert widths(256) == (32, 64, 128, 256)
  assert widths(33) == (32, 33)
  assert widths(20) == (20,)
  assert widths(1024, least=256) == (256, 512, 1024)


@pytest.mark.parametrize("sizes", [(1,), (7,), (5, 5), (6, 3), (1, 100), (3, 17, 4), (40, 1, 1, 25, 9)])
def test_of_every_n_steps_each_bucket_has_its_examples_and_of_fewer_its_share_within_the_bound(sizes):
  at, total = turns(sizes), sum(sizes)
  taken = np.zeros(len(sizes), int)
  for step in range(2 * total + 1):
    share = np.array(sizes) * step / total
    assert (abs(taken - share) <= 0.5 + 0.5 * len(sizes) * np.array(sizes) / total).all()
    if step % total == 0:
      np.testing.assert_array_equal(taken, share)
    bucket, turn = at(step)
    assert turn == taken[bucket]
    taken[bucket] += 1


def test_an_example_is_described_where_the_split_describes_its_examples():
  class Described(Arrays):
    def describe(self, index):
      return f"example {index}"

  assert Bucketed(Described(SPLIT.arrays), LENGTHS, (8,), ()).describe(3) == "example 3"
  assert not hasattr(bucketed(), "describe")


@pytest.mark.parametrize(
  "lengths, widths, cut, message",
  [
    (LENGTHS[:3], (8,), (), "3 lengths for 7 examples"),
    (LENGTHS, (2, 4), (), r"length 8 fits no width of \[2, 4\]; give a wider one"),
    (LENGTHS, (8,), ("tokens", "types"), "no array types to cut"),
  ],
)
def test_what_does_not_fit_the_split_is_refused(lengths, widths, cut, message):
  with pytest.raises(ValueError, match=message):
    Bucketed(SPLIT, lengths, widths, cut)
