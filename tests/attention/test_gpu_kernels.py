"""What the kernels are asked for is what the masks say, and the rest is refused by name.

Here a kernel is `jax.nn.dot_product_attention` by XLA, which takes the same arguments, held to the kernel's own rules.
On a GPU `JAX_PLATFORMS=cuda pytest tests/attention/test_gpu_kernels.py` runs cuDNN itself, and tokamax if it is there.
"""

import dataclasses
import functools
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_lab.attention import CAUSAL, FULL, Mask, Positions, spec
from attention_lab.attention.base import Call, Dims, Unsupported
from attention_lab.attention.engines import gpu_kernels
from attention_lab.benchmark import explanation
from attention_lab.benchmark.program import Case

B, N, K, H = 2, 4, 2, 8
KERNELS = ("cudnn", "tokamax")
GARBAGE = 777.0  # what a kernel leaves where a query reads nothing
XLA = jax.nn.dot_product_attention
ON_GPU = jax.default_backend() == "gpu"


def drawn(seed, *shape):
  return np.random.default_rng(seed).random(shape)


def masks(T, S):
  some = {"q_valid": jnp.asarray(drawn(0, B, T) < 0.7), "kv_valid": jnp.asarray(drawn(1, B, S) < 0.7)}
  packed = {"q_segments": jnp.arange(T)[None] // 3, "k_segments": jnp.arange(S)[None] // 3}
  return {
    "full": FULL,
    "causal": CAUSAL,
    "window": Mask(window=3),
    "window to both sides": Mask(window=(3, 2)),
    "window to the right": Mask(window=(1, 3)),
    "causal window": Mask(causal=True, window=3),
    "causal window to both sides": Mask(causal=True, window=(2, 4)),
    "prefix": Mask(causal=True, prefix=jnp.asarray([3, 0])),
    "padding": Mask(**some),
    "causal padding": Mask(causal=True, **some),
    "segments": Mask(causal=True, **packed),
    "explicit": Mask(explicit=jnp.asarray(drawn(2, B, N, T, S) < 0.5)),
    "one explicit for all": Mask(causal=True, explicit=jnp.asarray(drawn(3, 1, 1, 1, S) < 0.7)),
    "nothing": Mask(kv_valid=jnp.zeros((B, S), bool)),
  }


def by_xla(q, k, v, **demands):
  wide = (array.astype(jnp.float32) for array in (q, k, v))
  out, mask = XLA(*wide, implementation="xla", **demands).astype(q.dtype), demands["mask"]
  return out if mask is None else jnp.where(jnp.any(mask, axis=3).swapaxes(1, 2)[..., None], out, GARBAGE)


def cudnn(q, k, v, *, implementation, **demands):
  T, S, bias = q.shape[1], k.shape[1], demands["bias"]
  added = [array for array in (bias, demands["mask"]) if array is not None]
  assert implementation == "cudnn"
  assert T % 2 == S % 2 == 0
  assert all(array.shape[2:] == (T, S) for array in added)
  assert bias is None or bias.dtype == q.dtype
  assert demands["local_window_size"] is None or (demands["is_causal"] and T <= S and not added)
  return by_xla(q, k, v, **demands)


def tokamax(q, k, v, *, implementation, **demands):
  assert "xla" not in "".join(implementation)
  assert demands["local_window_size"] is None or q.shape[1] == k.shape[1]
  return by_xla(q, k, v, **demands)


@pytest.fixture
def gpu(monkeypatch):
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  monkeypatch.setattr(jax.nn, "dot_product_attention", cudnn)
  package = types.ModuleType("tokamax")
  package.dot_product_attention = tokamax
  monkeypatch.setitem(sys.modules, "tokamax", package)


def inputs(T=6, S=6, width=H, value=H, dtype=jnp.float16):
  keys = jax.random.split(jax.random.key(0), 3)
  shapes = ((B, T, N, width), (B, S, K, width), (B, S, K, value))
  return [jax.random.normal(key, shape, dtype) for key, shape in zip(keys, shapes, strict=True)]


def same_as_xla(text, call):
  """Both kernels against our own engine in float32, within the rounding of their float16 outputs."""
  variant, arrays = spec.parse(text), inputs()
  want = variant.attend({}, *(array.astype(jnp.float32) for array in arrays), call)
  for name in KERNELS:
    out = dataclasses.replace(variant, implementation=name).attend({}, *arrays, call)
    assert out.dtype == jnp.float16
    np.testing.assert_allclose(np.asarray(out, np.float32), want, atol=2e-3, err_msg=name)


@pytest.mark.parametrize("name", masks(1, 1))
@pytest.mark.usefixtures("gpu")
def test_a_kernel_gives_what_our_engine_gives(name):
  bias = jax.random.normal(jax.random.key(5), (1, N, 1, 6), jnp.float16)
  same_as_xla("softmax(scale=0.4)", Call(masks(6, 6)[name], bias=None if name == "full" else bias))


@pytest.mark.parametrize("name", ["full", "causal", "causal padding"])
@pytest.mark.usefixtures("gpu")
def test_the_window_of_local_is_that_of_our_engine(name):
  same_as_xla("local(window=3)", Call(masks(6, 6)[name]))


@pytest.mark.parametrize(("T", "S"), [(6, 6), (4, 7), (7, 5)])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.usefixtures("gpu")
def test_a_kernel_reads_exactly_the_keys_that_the_mask_shows(T, S, biased):
  ones = jnp.zeros((B, T, N, H), jnp.float16), jnp.zeros((B, S, K, H), jnp.float16)
  v = jnp.broadcast_to(jnp.eye(S, H, dtype=jnp.float16)[None, :, None], (B, S, K, H))
  for name, mask in masks(T, S).items():
    call = Call(mask, bias=jnp.zeros((1, 1, 1, S)) if biased else None)
    want = np.broadcast_to(mask.dense(T, S), (B, N, T, S))
    for kernel in KERNELS:
      out = gpu_kernels.attend(spec.parse(f"softmax(implementation='{kernel}')"), *ones, v, call, 1.0)
      np.testing.assert_array_equal(np.asarray(out).swapaxes(1, 2)[..., :S] > 0, want, err_msg=f"{name}, {kernel}")


def test_causal_and_windowed_calls_stay_structure():
  native = gpu_kernels.translate(Call(Mask(causal=True, window=3)), 6, 6, cudnn=True)
  assert native == gpu_kernels.Demands(is_causal=True, local_window_size=(2, 0))
  both_sides = gpu_kernels.translate(Call(Mask(window=(3, 2))), 6, 6, cudnn=False)
  assert both_sides == gpu_kernels.Demands(local_window_size=(2, 1))
  assert gpu_kernels.translate(Call(Mask(window=(3, 2))), 6, 6, cudnn=True).mask is not None
  assert gpu_kernels.translate(Call(CAUSAL), 7, 4, cudnn=True) == gpu_kernels.Demands(is_causal=True)


@pytest.mark.usefixtures("gpu")
def test_given_positions_become_a_mask():
  order = jnp.asarray([[3, 0, 2, -1, 1, 4], [0, 1, 2, 3, -1, -1]])
  same_as_xla("local(window=2)", Call(CAUSAL, Positions(q=jnp.asarray([[2, 3, 4, 5, 6, 0]]), k=order)))


@pytest.mark.usefixtures("gpu")
def test_decoding_in_pieces_equals_our_engine():
  outs = {}
  for name in ("xla", *KERNELS):
    variant, arrays = spec.parse(f"local(window=3, implementation='{name}')"), inputs(5, 5)
    state, outs[name] = variant.init_state(B, Dims(N * H, N, K, H, H, 16), jnp.float16), []
    for start, end in ((0, 4), (4, 5)):
      state, out = jax.jit(variant.extend)({}, state, *(array[:, start:end] for array in arrays))
      outs[name].append(out)
  for name in KERNELS:
    np.testing.assert_allclose(*(np.concatenate(outs[kernel], axis=1) for kernel in ("xla", name)), atol=4e-3)


@pytest.mark.usefixtures("gpu")
def test_gradients_are_those_of_our_engine_where_rows_read_nothing():
  call = Call(masks(5, 7)["padding"], bias=jnp.zeros((1, 1, 5, 7)))

  @functools.partial(jax.jit, static_argnums=0)
  @functools.partial(jax.grad, argnums=(1, 2))
  def gradient(name, arrays, bias):
    variant = spec.parse(f"softmax(implementation='{name}')")
    return jnp.sum(variant.attend({}, *arrays, call._replace(bias=bias)).astype(jnp.float32) ** 2)

  gradients = {name: gradient(name, inputs(5, 7), call.bias) for name in ("xla", *KERNELS)}
  for name in KERNELS:
    for expected, actual in zip(*(jax.tree.leaves(gradients[key]) for key in ("xla", name)), strict=True):
      np.testing.assert_allclose(actual, expected, atol=2e-2)


@pytest.mark.parametrize(
  ("kernel", "sizes", "message"),
  [
    ("cudnn", {"dtype": jnp.float32}, "float32"),
    ("tokamax", {"dtype": jnp.float32}, "float32"),
    ("cudnn", {"value": 16}, "values as wide as keys, not 16 and 8"),
    ("cudnn", {"width": 12, "value": 12}, "multiple of 8, not 12"),
    ("cudnn", {"width": 264, "value": 264}, "at most 256"),
  ],
)
@pytest.mark.usefixtures("gpu")
def test_what_a_kernel_does_not_take_is_refused(kernel, sizes, message):
  with pytest.raises(Unsupported, match=rf"^softmax\(implementation='{kernel}'\) .*{message}.*implementation='xla'$"):
    spec.parse(f"softmax(implementation='{kernel}')").attend({}, *inputs(**sizes), Call())


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("field", ["soft_cap=2.0", "sink=True"])
def test_fields_that_only_xla_computes_are_refused(kernel, field):
  with pytest.raises(Unsupported, match=f"'{kernel}'.* does not compute {field}: leave"):
    spec.parse(f"softmax({field}, implementation='{kernel}')")


@pytest.mark.usefixtures("gpu")
def test_what_the_kernel_itself_refuses_names_the_kernel_and_the_reason(monkeypatch):
  def refuse(*_, **__):
    raise NotImplementedError("The head dim must be <= 128")

  monkeypatch.setattr(jax.nn, "dot_product_attention", refuse)
  with pytest.raises(Unsupported, match=r"'cudnn'.*The head dim must be <= 128.*'xla'"):
    spec.parse("softmax(implementation='cudnn')").attend({}, *inputs(), Call())
  monkeypatch.setitem(sys.modules, "tokamax", None)
  with pytest.raises(Unsupported, match=r"'tokamax'.* needs the package tokamax"):
    spec.parse("softmax(implementation='tokamax')").attend({}, *inputs(), Call())


def test_an_unknown_implementation_is_refused_with_the_choices():
  object.__setattr__(variant := spec.parse("local"), "implementation", "cuddn")  # past the tests' type checks
  with pytest.raises(ValueError, match=r"implementation='cuddn' is unknown.*did you mean 'cudnn'.*xla, cudnn, tokamax"):
    gpu_kernels.check(variant)
  with pytest.raises(ValueError, match=r"'cuddn' must be .*'xla', 'cudnn', 'tokamax'"):
    spec.parse("local(implementation='cuddn')")


@pytest.mark.parametrize("text", ["softmax(implementation='cudnn')", "local(window=3, implementation='tokamax')"])
def test_a_spec_names_an_implementation(text):
  assert spec.to_string(spec.parse(text)) == text


@pytest.mark.skipif(ON_GPU, reason="says what a machine without a GPU says")
@pytest.mark.parametrize("text", ["softmax", "local"])
def test_without_a_gpu_every_kernel_says_so(text):
  states = explanation.implementations(spec.parse(text), Case("forward", 16, 1, 2, 2, 8, "float32", True))
  needs = "not used: {}(implementation='{}') needs a GPU, and this is a cpu: leave implementation out"
  assert states == {"xla": "ran", **{name: needs.format(text, name) for name in KERNELS}}


@pytest.mark.skipif(not ON_GPU, reason="needs a GPU")
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", masks(1, 1))
@pytest.mark.parametrize("text", ["softmax", "local(window=3)"])
def test_a_kernel_on_its_device_equals_our_engine_forward_and_backward(text, name, kernel):
  pytest.importorskip("tokamax" if kernel == "tokamax" else "jax")
  T, call = 62, Call(masks(62, 62)[name])
  q, k, v = (jnp.tile(array, (1, 1, 1, 8)) * 0.5 for array in inputs(T, T, dtype=jnp.bfloat16))

  def loss(arrays, variant):
    out = variant.attend({}, *arrays, call)
    return jnp.sum(jnp.sin(out.astype(jnp.float32))), out

  def loss_and_gradients(implementation, dtype):
    variant = dataclasses.replace(spec.parse(text), implementation=implementation)
    arrays = tuple(array.astype(dtype) for array in (q, k, v))
    return jax.tree.leaves(jax.jit(jax.value_and_grad(loss, has_aux=True), static_argnums=1)(arrays, variant))[1:]

  for expected, actual in zip(
    loss_and_gradients("xla", jnp.float32), loss_and_gradients(kernel, jnp.bfloat16), strict=True
  ):
    np.testing.assert_allclose(
      np.asarray(actual, np.float32), expected, atol=0.03 * max(1.0, float(jnp.max(jnp.abs(expected))))
    )
