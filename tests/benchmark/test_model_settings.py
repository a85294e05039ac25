import json
import shlex
import sys

import numpy as np
import pytest

from attention_lab.benchmark.models import run, settings, worker, workload

WRONG = {
  "an unknown model": ({"models": ("gtp",)}, "--model=gtp is not one of gpt, .* did you mean 'gpt'"),
  "no model": ({"models": ()}, "--model is empty"),
  "an unknown variant": ({"attention": ("sofmax",)}, "did you mean 'softmax'"),
  "no variant": ({"attention": ()}, "--attention is empty"),
  "an unknown peer": ({"peers": ("hf_eagr",)}, "--peers=hf_eagr is not one of hf_eager, hf_compile, did you mean"),
  "an unknown baseline": ({"baseline": "linear"}, "--baseline=linear is not one of the rows softmax"),
  "a size that no model has": ({"sizes": {"patch": 8}}, "--patch=8 is no size of --model=gpt: it belongs to vit"),
  "a negative size": ({"sizes": {"layers": -1}}, "--layers=-1 must be at least 1"),
  "a batch of none": ({"batch": (8, 0)}, "--batch=0 must be at least 1"),
  "heads that do not divide": ({"sizes": {"heads": 3}}, "--heads=3 must divide --width=256"),
  "patches that do not fill": ({"models": ("vit",), "sizes": {"patch": 15}}, "--patch=15 must divide --image=224"),
  "two rounds": ({"rounds": 2}, "--rounds=2 must be at least 3"),
  "no time": ({"seconds": 0.0}, "--seconds=0 must be above 0"),
  "a pause below none": ({"pause": -1.0}, "--pause=-1 not below"),
  "a peer of a start": ({"models": ("start",), "peers": ("hf_eager",)}, "--peers has no part in --model=start"),
  "a start in huge pages": ({"models": ("start",), "huge_pages": True}, "--huge_pages has no part in --model=start"),
}


@pytest.mark.parametrize("change, message", WRONG.values(), ids=WRONG)
def test_a_mistake_is_refused_in_one_line(change, message):
  with pytest.raises(ValueError, match=message) as caught:
    settings.Settings(**change)
  assert "\n" not in str(caught.value)


def test_peers_that_are_not_installed_are_refused_with_the_command_that_installs_them(tmp_path, monkeypatch):
  monkeypatch.setattr(settings.importlib.util, "find_spec", lambda _: None)
  with pytest.raises(ValueError, match=r"needs torch and transformers, which are not installed: pip install .*peers"):
    run.execute(settings.Settings(peers=("hf_eager",)), tmp_path / "new", lambda _: None)
  assert not (tmp_path / "new").exists()
  settings.check_installed(())


def test_a_workdir_that_is_a_file_is_refused(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(ValueError, match="is a file: give a folder"):
    run.execute(settings.Settings(), tmp_path / "file", lambda _: None)


def test_each_variant_is_a_row_and_in_huge_pages_another_before_the_peers():
  chosen = settings.Settings(attention=("softmax()", "linear|softmax"), peers=("hf_eager",), huge_pages=True)
  workloads = chosen.workloads("gpt", 8)
  assert list(workloads) == [
    *("softmax", "softmax +huge_pages", "linear|softmax", "linear|softmax +huge_pages"),
    "hf_eager",
  ]
  assert [entry.huge_pages for entry in workloads.values()] == [False, True, False, True, False]
  assert [entry.program for entry in workloads.values()] == ["lab"] * 4 + ["hf_eager"]
  assert list(chosen.workloads("start", 8)) == ["softmax", "linear|softmax"]


def test_sizes_are_the_models_own_unless_given():
  chosen = settings.Settings(("gpt", "vit", "generate"), sizes={"layers": 2, "patch": 0}, batch=())
  vit = chosen.workloads("vit", 16)["softmax"]
  assert (vit.layers, vit.width, vit.heads, vit.image, vit.patch, vit.classes) == (2, 192, 3, 224, 16, 1000)
  assert (vit.length, vit.items, vit.unit) == (0, 16, "images")
  gpt = chosen.workloads("gpt", 8)["softmax"]
  assert (gpt.layers, gpt.width, gpt.length, gpt.vocabulary, gpt.items, gpt.unit) == (2, 256, 512, 8192, 4096, "tokens")
  assert chosen.batches("generate") == (1, 8)
  assert chosen.workloads("generate", 8)["softmax"].items == 8 * 512


def test_a_command_makes_the_same_settings_again():
  chosen = settings.Settings(
    ("generate",), ("linear",), ("hf_eager",), {"layers": 2}, (1, 3), 5, baseline="hf_eager", huge_pages=True
  )
  arguments = shlex.split(chosen.command("generate", 3))
  assert arguments[:3] == ["python", "-m", "experiments.benchmark_models"]
  assert set(arguments[3:]) == {
    *("--model=generate", "--attention=linear", "--peers=hf_eager", "--layers=2", "--batch=3", "--rounds=5"),
    *("--baseline=hf_eager", "--huge_pages"),
  }


def test_a_job_survives_its_way_to_the_worker():
  vit = settings.Settings(("vit",), huge_pages=True).workloads("vit", 3)["softmax +huge_pages"]
  assert workload.from_json(vit.to_json()) == vit


def test_all_workers_draw_the_same_batch_and_each_number_another():
  gpt = settings.Settings(sizes={"length": 7, "vocabulary": 5}).workloads("gpt", 2)
  first, again, second = (workload.tokens(gpt["softmax"], number) for number in (0, 0, 1))
  assert first.shape == (2, 8)
  assert first.dtype == np.int32
  assert 0 <= first.min() <= first.max() < 5
  assert np.array_equal(first, again)
  assert not np.array_equal(first, second)
  vit = settings.Settings(("vit",), sizes={"image": 16, "classes": 3}).workloads("vit", 4)["softmax"]
  pixels, labels = workload.images(vit, 0)
  assert pixels.shape == (4, 16, 16, 3)
  assert pixels.dtype == np.float32
  assert 0 <= pixels.min() <= pixels.max() < 1
  assert set(labels) <= {0, 1, 2}


def test_a_prompt_has_no_target():
  prompt = settings.Settings(("generate",), sizes={"length": 7}).workloads("generate", 2)["softmax"]
  assert workload.tokens(prompt, 0).shape == (2, 7)


def test_a_worker_that_dies_is_known_by_the_last_line_of_its_log(tmp_path, monkeypatch):
  monkeypatch.setattr(worker, "MODULE", "nowhere_at_all")
  log = tmp_path / "log"
  log.write_text("of another worker\n")
  with (
    worker.Worker(json.dumps({}), log) as handle,
    pytest.raises(worker.Died, match=r"ended with code 1: .*nowhere_at_all"),
  ):
    handle.read()
  assert log.read_text().startswith("of another worker\n")


def test_huge_pages_are_set_before_jax_is_there():
  code = "import sys, attention_lab.benchmark.models.worker; assert not {'jax', 'numpy', 'torch'} & set(sys.modules)"
  assert worker.subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
