"""FLOPs are counted from the jaxpr, loops as often as they run."""

import jax
import jax.numpy as jnp
import pytest

from attention_lab import compiled

A = jax.ShapeDtypeStruct((4, 6), jnp.float32)
B = jax.ShapeDtypeStruct((6, 5), jnp.float32)


def test_a_matrix_product_costs_two_operations_per_multiply_add():
  assert compiled.flops(jnp.dot, A, B) == 2 * 4 * 6 * 5


def test_a_scan_counts_its_body_as_often_as_it_runs():
  def loop(b):
    return jax.lax.fori_loop(0, 7, lambda _, x: x @ jnp.ones((5, 5)), b)

  assert compiled.flops(loop, B) - 7 * 2 * 6 * 5 * 5 < 7 * 3


def test_jit_checkpoint_and_vmap_do_not_hide_work():
  inner = jax.checkpoint(jax.jit(lambda a: a @ jnp.ones((6, 5))))
  assert compiled.flops(jax.vmap(inner), jax.ShapeDtypeStruct((3, 4, 6), jnp.float32)) == 3 * 2 * 4 * 6 * 5


def test_a_convolution_costs_its_window_per_output():
  def convolve(x, w):
    return jax.lax.conv_general_dilated(x, w, (1,), "VALID")

  x, w = jax.ShapeDtypeStruct((1, 3, 10), jnp.float32), jax.ShapeDtypeStruct((8, 3, 3), jnp.float32)
  assert compiled.flops(convolve, x, w) == 2 * 8 * 8 * 3 * 3


def test_a_loop_of_unknown_length_is_refused():
  with pytest.raises(ValueError, match="unknown length"):
    compiled.flops(lambda b: jax.lax.while_loop(lambda x: x.sum() < 9, lambda x: x + 1, b), B)


def test_a_kernel_is_refused():
  from jax.experimental import pallas

  def doubled(x):
    kernel = lambda read, write: write.__setitem__(..., 2 * read[...])
    return pallas.pallas_call(kernel, out_shape=x)(jnp.zeros(x.shape))

  with pytest.raises(ValueError, match="inside the kernel pallas_call cannot be counted"):
    compiled.flops(lambda: doubled(B))


def test_memory_and_collectives_are_read_from_the_compiled_program():
  program = jax.jit(lambda a, b: a @ b).lower(A, B).compile()
  assert compiled.memory(program)["arguments"] == 4 * (4 * 6 + 6 * 5)
  assert compiled.collectives(program) == {}
