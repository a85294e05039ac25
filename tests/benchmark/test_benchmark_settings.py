import pytest

from attention_lab.benchmark import program, settings
from attention_lab.benchmark.program import Case

WRONG = {
  "an unknown variant": ({"attention": ("sofmax",)}, "did you mean 'softmax'"),
  "no variant": ({"attention": ()}, "--attention is empty"),
  "layers": ({"attention": ("softmax|linear",)}, "names 2 layers"),
  "an unknown mode": ({"modes": ("forwad",)}, "--mode=forwad .* did you mean 'forward'"),
  "an unknown dtype": ({"dtype": "float16"}, "--dtype=float16"),
  "an unknown peer": ({"peers": ("torch",)}, "--peers=torch is not one of"),
  "an unknown baseline": ({"baseline": "lin"}, "unknown attention variant 'lin'"),
  "no length": ({"lengths": ()}, "--lengths is empty"),
  "a length of one": ({"lengths": (1, 64)}, "--lengths=1 must be at least 2"),
  "two rounds": ({"rounds": 2}, "--rounds=2 must be at least 3"),
  "no time": ({"seconds": 0.0}, "--seconds=0 must be above 0"),
  "heads that do not divide": ({"kv_heads": 3}, "--kv_heads=3 must divide --heads=8"),
  "torch in huge pages": (
    {"peers": ("torch_sdpa",), "huge_pages": True},
    "--huge_pages and --peers=torch_sdpa exclude",
  ),
}


@pytest.mark.parametrize("change, message", WRONG.values(), ids=WRONG)
def test_a_mistake_is_refused_in_one_line(change, message):
  with pytest.raises(ValueError, match=message) as caught:
    settings.Settings(**{"attention": ("softmax",), **change})
  assert "\n" not in str(caught.value)


def test_lists_are_split_at_commas_and_typed():
  assert settings.split("lengths", "256, 512", int) == (256, 512)
  assert settings.split("peers", "") == ()
  for text in ("256,,512", "256,abc"):
    with pytest.raises(ValueError, match=f"--lengths={text} must be a list of int"):
      settings.split("lengths", text, int)


def test_names_start_with_the_baseline_and_hold_each_once():
  chosen = settings.Settings(("linear", "softmax()"), peers=("jax_dpa",), baseline="softmax")
  assert chosen.names() == ("softmax", "linear", "jax_dpa")
  assert settings.Settings(("linear",), peers=("jax_dpa",), baseline="jax_dpa").names() == ("jax_dpa", "linear")


def test_the_memory_limit_and_the_lists_do_not_make_another_measurement():
  first = settings.Settings(("softmax",))
  assert settings.digest(first.row_settings()) == settings.digest(
    settings.Settings(("softmax",), (64,), memory=3.0).row_settings()
  )
  assert settings.digest(first.row_settings()) != settings.digest(
    settings.Settings(("softmax",), causal=False).row_settings()
  )


@pytest.mark.parametrize(
  "mode, causal, flops",
  [("forward", False, 4096), ("forward", True, 2048), ("train", False, 14336), ("decode", True, 256)],
)
def test_exact_attention_has_two_products_forward_and_five_backward(mode, causal, flops):
  assert program.attention_flops(Case(mode, 16, 1, 1, 1, 4, "float32", causal)) == flops


def test_under_a_window_only_its_pairs_are_counted():
  pairs = (
    sum(0 <= i - j < 3 for i in range(16) for j in range(16)),
    sum(abs(i - j) < 3 for i in range(16) for j in range(16)),
  )
  for causal, count in zip((True, False), pairs, strict=True):
    counted = program.attention_flops(Case("forward", 16, 1, 1, 1, 1, "float32", causal, 3)) / 4
    assert abs(counted - count) <= 16


def test_a_window_is_refused_in_decoding():
  with pytest.raises(ValueError, match=r"--window=4 .* --mode=forward,train"):
    settings.Settings(("softmax",), window=4)
