import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

import attention_lab.data
from attention_lab.data.pipeline import evaluation_batches, train_batches
from attention_lab.data.source import Arrays

SPLIT = Arrays({"x": np.arange(10, dtype=np.int32), "y": np.arange(20, dtype=np.float32).reshape(10, 2)})


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


@pytest.mark.parametrize("done", [0, 1, 7])
def test_going_on_from_a_saved_position_equals_never_having_stopped(done):
  whole = train_batches(SPLIT, 4, seed=3)
  take(whole, done)
  state = json.loads(json.dumps(whole.get_state()))
  resumed = train_batches(SPLIT, 4, seed=3)
  take(resumed, 2)
  resumed.set_state(state)
  for ours, theirs in zip(take(resumed, 9), take(whole, 9), strict=True):
    assert ours.keys() == theirs.keys()
    assert all(ours[name].tobytes() == theirs[name].tobytes() for name in ours)


def test_evaluation_visits_every_example_once_in_order_and_pads_the_last_batch_with_weight_0():
  batches = list(evaluation_batches(SPLIT, 4))
  assert [batch["x"].shape for batch in batches] == [(4,)] * 3
  np.testing.assert_array_equal(numbers(batches), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 0])
  weights = np.concatenate([batch["weight"] for batch in batches])
  assert weights.dtype == np.float32
  np.testing.assert_array_equal(weights, [1] * 10 + [0] * 2)
  assert len(list(evaluation_batches(SPLIT, 5))) == 2


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
