"""Oracles run without the runtime checks of annotations: their loops call small functions some 10⁵ times."""

import functools

import jaxtyping
import pytest

from attention_lab.certify import battery, oracle


def unchecked(function):
  @functools.wraps(function)
  def call(*args, **kwargs):
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
      return function(*args, **kwargs)
    finally:
      jaxtyping.config.update("jaxtyping_disable", False)

  return call


@pytest.fixture(autouse=True, scope="session")
def _oracles_run_unchecked():
  patch = pytest.MonkeyPatch()
  patch.setattr(oracle, "readable", unchecked(oracle.readable))
  for case in {case.__name__: case for _, case in battery.specs()}.values():
    patch.setattr(case, "oracle", unchecked(case.oracle))
  yield
  patch.undo()
