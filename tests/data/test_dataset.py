import numpy as np
import pytest

from attention_lab.config import DataConfig
from attention_lab.data.dataset import Arrays, Lazy, digest, validate_name


def test_the_first_name_is_the_default_and_a_path_alone_is_the_users_own():
  assert validate_name(DataConfig(), ("digits", "letters")) == "digits"
  assert validate_name(DataConfig(name="letters"), ("digits", "letters")) == "letters"
  assert validate_name(DataConfig(path="pictures"), ("digits", "letters")) == ""


def test_an_unknown_name_is_refused_with_the_nearest_one_and_the_choices():
  with pytest.raises(ValueError, match=r"--config\.data\.name=digit .*did you mean 'digits'\?.*digits, letters"):
    validate_name(DataConfig(name="digit"), ("digits", "letters"))


def test_a_name_and_a_path_together_are_refused():
  with pytest.raises(ValueError, match=r"--config\.data\.name=digits and --config\.data\.path=here"):
    validate_name(DataConfig(name="digits", path="here"), ("digits",))


def test_a_digest_sees_names_dtypes_shapes_and_values_but_not_memory_layout():
  base = {"a": np.arange(6, dtype=np.int32).reshape(2, 3)}
  variants = (
    {"b": base["a"]},
    {"a": base["a"].astype(np.float32)},
    {"a": base["a"].astype(np.uint32)},
    {"a": base["a"].reshape(3, 2)},
    {"a": base["a"] + 1},
  )
  assert len({digest(base)} | {digest(other) for other in variants}) == 6
  assert digest({"a": np.asfortranarray(base["a"])}) == digest({"a": base["a"].astype(">i4")}) == digest(base)


def test_a_split_gathers_a_batch_and_refuses_arrays_of_unequal_length():
  split = Arrays({"x": np.arange(10), "y": np.arange(20).reshape(10, 2)})
  batch = split[np.array([3, 3, 0])]
  assert len(split) == 10
  np.testing.assert_array_equal(batch["x"], [3, 3, 0])
  np.testing.assert_array_equal(batch["y"], [[6, 7], [6, 7], [0, 1]])
  with pytest.raises(ValueError, match="same number of examples"):
    Arrays({"x": np.arange(3), "y": np.arange(4)})


def test_lazy_numbers_are_computed_when_read_and_once():
  calls = []
  numbers = Lazy({"a": lambda: calls.append("a") or 1.5, "b": lambda: calls.append("b") or 2.5})
  assert list(numbers) == ["a", "b"]
  assert not calls
  assert numbers["b"] == numbers["b"] == 2.5
  assert calls == ["b"]
