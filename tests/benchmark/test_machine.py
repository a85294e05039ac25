import pytest

from attention_lab.benchmark import machine


def test_a_program_fits_if_its_bytes_do_and_where_nobody_knows():
  assert machine.memory_problem(2**30, 2**30) == ""
  assert machine.memory_problem(None, 1) == machine.memory_problem(1, None) == ""
  assert machine.memory_problem(3 * 2**30, 2**31) == "needs 3.00 GiB, and 2.00 GiB may be used"


def test_the_load_of_others_is_all_that_is_busy_less_ones_own(monkeypatch, tmp_path):
  stat, now = tmp_path / "stat", [0.0]
  monkeypatch.setattr(machine, "STAT", stat)
  monkeypatch.setattr(machine.os, "sysconf", lambda _: 100)
  monkeypatch.setattr(machine.time, "monotonic", lambda: now[0])
  cpu = iter([5.0, 9.0])
  monkeypatch.setattr(machine, "_process_seconds", lambda: next(cpu))
  stat.write_text("cpu 100 0 100 999 0 0 0 0 0 0\n")
  meter = machine.Meter()
  stat.write_text("cpu 700 0 500 1999 0 0 0 0 0 0\n")
  now[0] = 5.0
  assert meter.read() == pytest.approx((10.0 - 4.0) / 5.0)


def test_where_the_system_does_not_say_the_load_is_not_known(monkeypatch, tmp_path):
  monkeypatch.setattr(machine, "STAT", tmp_path / "stat")
  assert machine.Meter().read() is None
