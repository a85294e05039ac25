import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

import attention_lab.data
from attention_lab.data.buckets import Bucketed
from attention_lab.data.dataset import Arrays
from attention_lab.data.pipeline import evaluation_batches, train_batches

SPLIT = Arrays({"x": np.arange(10, dtype=np.int32), "y": np.arange(20, dtype=np.float32).reshape(10, 2)})
LENGTHS = np.array([1, 4, 2, 3, 4, 1, 1, 2, 1, 3])
TOKENS = np.arange(40, dtype=np.int32).reshape(10, 4)
BUCKETED = Bucketed(Arrays(SPLIT.arrays | {"tokens": TOKENS}), LENGTHS, (1, 2, 4), ("tokens",))


class Drawn(Arrays):
  def augmented(self, indices, seed, step):
    return self[indices] | {"drawn": np.array([seed, step])}


def take(iterator, count):
  return [next(iterator) for _ in range(count)]


def numbers(batches):
  return np.concatenate([batch["x"] for batch in batches])


def test_every_epoch_holds_every_example_once_though_batches_do_not_divide_it():
  stream = numbers(take(train_batches(SPLIT, 4, seed=0), 15))
  epochs = stream.reshape(6, 10)
  assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
  assert len({tuple(epoch) for epoch in epochs}) == 6


def test_a_batch_larger_than_the_split_runs_through_several_epochs():
  stream = numbers(take(train_batches(SPLIT, 25, seed=0), 2))
  assert all(sorted(epoch) == list(range(10)) for epoch in stream.reshape(5, 10))
  np.testing.assert_array_equal(stream, numbers(take(train_batches(SPLIT, 5, seed=0), 10)))


def test_the_order_is_a_function_of_the_seed_and_no_seed_is_a_shifted_other():
  epochs = {seed: numbers(take(train_batches(SPLIT, 10, seed), 8)).reshape(8, 10) for seed in range(3)}
  np.testing.assert_array_equal(epochs[0], numbers(take(train_batches(SPLIT, 10, 0), 8)).reshape(8, 10))
  assert len({tuple(epoch) for orders in epochs.values() for epoch in orders}) == 24


def test_the_order_of_seed_0_stays_what_saved_runs_have_seen():
  np.testing.assert_array_equal(next(train_batches(SPLIT, 10, 0))["x"], [4, 6, 2, 7, 3, 5, 9, 0, 8, 1])


@pytest.mark.parametrize("split", [SPLIT, BUCKETED, Drawn(SPLIT.arrays)], ids=["plain", "bucketed", "augmented"])
@pytest.mark.parametrize("done", [0, 1, 7])
def test_going_on_from_a_saved_position_equals_never_having_stopped(done, split):
  whole = train_batches(split, 4, seed=3)
  take(whole, done)
  state = json.loads(json.dumps(whole.get_state()))
  resumed = train_batches(split, 4, seed=3)
  take(resumed, 2)
  resumed.set_state(state)
  for ours, theirs in zip(take(resumed, 9), take(whole, 9), strict=True):
    assert ours.keys() == theirs.keys()
    assert all(ours[name].tobytes() == theirs[name].tobytes() for name in ours)


def test_every_batch_comes_from_one_bucket_and_is_as_wide_as_it():
  for batch in take(train_batches(BUCKETED, 3, seed=1), 20):
    width = batch["tokens"].shape[1]
    bucket = BUCKETED.buckets[BUCKETED.widths.index(width)]
    assert set(batch["x"]) <= set(bucket)
    np.testing.assert_array_equal(batch["tokens"], TOKENS[batch["x"], :width])


def test_the_batches_of_all_seeds_have_one_shape_at_each_step_but_not_one_order():
  streams = [take(train_batches(BUCKETED, 3, seed), 20) for seed in range(3)]
  shapes = [[batch["tokens"].shape for batch in stream] for stream in streams]
  assert shapes[0] == shapes[1] == shapes[2]
  assert len(set(shapes[0])) == 3
  assert len({tuple(numbers(stream)) for stream in streams}) == 3


def test_after_as_many_steps_as_examples_each_has_been_visited_batch_times_and_before_about_as_often():
  counts = np.zeros(10, int)
  sizes = np.zeros(10)
  for bucket in BUCKETED.buckets:
    sizes[bucket] = len(bucket)
  for step, batch in enumerate(take(train_batches(BUCKETED, 3, seed=0), 30), 1):
    counts += np.bincount(batch["x"], minlength=10)
    bound = (0.5 + 0.5 * len(BUCKETED.buckets) * sizes / 10) * 3 / sizes + 1
    assert (abs(counts - step * 3 / 10) <= bound).all()
    if step % 10 == 0:
      np.testing.assert_array_equal(counts, 3 * step // 10)


def test_every_epoch_of_a_bucket_holds_each_of_its_examples_once():
  batches = take(train_batches(BUCKETED, 3, seed=0), 40)
  for width, bucket in zip(BUCKETED.widths, BUCKETED.buckets, strict=True):
    stream = numbers([batch for batch in batches if batch["tokens"].shape[1] == width])
    epochs = stream[: len(stream) // len(bucket) * len(bucket)].reshape(-1, len(bucket))
    assert all(sorted(epoch) == sorted(bucket) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_one_bucket_has_the_stream_of_the_split_itself():
  bucketed = Bucketed(SPLIT, LENGTHS, (4,), ())
  np.testing.assert_array_equal(
    numbers(take(train_batches(bucketed, 4, 5), 8)), numbers(take(train_batches(SPLIT, 4, 5), 8))
  )


def test_a_split_that_draws_its_training_batches_is_given_seed_and_step_and_is_plain_in_evaluation():
  split = Drawn(SPLIT.arrays)
  batches = take(train_batches(split, 4, seed=2), 5)
  np.testing.assert_array_equal([batch["drawn"] for batch in batches], [[2, step] for step in range(5)])
  np.testing.assert_array_equal(numbers(batches), numbers(take(train_batches(SPLIT, 4, seed=2), 5)))
  assert "drawn" not in next(evaluation_batches(split, 4))


def test_evaluation_visits_every_example_once_in_order_and_pads_the_last_batch_with_weight_0():
  batches = list(evaluation_batches(SPLIT, 4))
  assert [batch["x"].shape for batch in batches] == [(4,)] * 3
  np.testing.assert_array_equal(numbers(batches), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 0])
  weights = np.concatenate([batch["weight"] for batch in batches])
  assert weights.dtype == np.float32
  np.testing.assert_array_equal(weights, [1] * 10 + [0] * 2)
  assert len(list(evaluation_batches(SPLIT, 5))) == 2


def test_predictions_of_a_bucketed_split_can_be_put_back_in_order():
  gathered = np.full(10, -1.0, np.float32)
  weights = np.zeros(10, int)
  for batch in evaluation_batches(BUCKETED, 4):
    assert batch["x"].shape == (4,)
    assert batch["index"].dtype == np.int32
    np.testing.assert_array_equal(batch["tokens"], TOKENS[batch["index"], : batch["tokens"].shape[1]])
    real = batch["weight"] > 0
    gathered[batch["index"][real]] = batch["x"][real]
    weights += np.bincount(batch["index"], batch["weight"], minlength=10).astype(int)
  np.testing.assert_array_equal(gathered, np.arange(10))
  np.testing.assert_array_equal(weights, 1)


def test_the_index_of_a_plain_split_counts_up_and_padding_repeats_the_first():
  index = np.concatenate([batch["index"] for batch in evaluation_batches(SPLIT, 4)])
  np.testing.assert_array_equal(index, [*range(10), 0, 0])


def test_bad_batches_seeds_and_empty_splits_are_refused_at_the_call():
  empty = Arrays({"x": np.zeros(0)})
  for make in (lambda s, b: train_batches(s, b, 0), evaluation_batches):
    with pytest.raises(ValueError, match=r"--config\.batch=0"):
      make(SPLIT, 0)
    with pytest.raises(ValueError, match="empty"):
      make(empty, 2)
  with pytest.raises(ValueError, match=r"--config\.seed=-1"):
    train_batches(SPLIT, 2, -1)


def test_importing_the_data_package_imports_no_heavy_library():
  modules = [file.stem for file in pathlib.Path(attention_lab.data.__file__).parent.glob("*.py")]
  imports = ", ".join(f"attention_lab.data.{name}" for name in modules)
  assert "recall" in modules
  heavy = "{'grain', 'jax', 'sklearn', 'tokenizers', 'PIL', 'flax'}"
  code = f"import sys, {imports}; print(sorted({heavy} & set(sys.modules)))"
  result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
  assert result.stdout.strip() == "[]"
