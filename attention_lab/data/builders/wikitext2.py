"""WikiText-2 in words, for TFDS: 36,718 / 3,760 / 4,358 lines, 2,088,628 / 217,646 / 245,569 words with line ends.

Merity et al. 2017, "Pointer Sentinel Mixture Models"; CC BY-SA 3.0. An example is one line, as published: spaces at
both ends, `<unk>` for rare words, ` = Title = ` at the head of an article, empty lines as " ". The files are
wiki.train.tokens, wiki.valid.tokens and wiki.test.tokens of the release wikitext-2-v1, here from the copy that
PyTorch's examples keep; each digest is that of the file itself, unpacked.
"""

from collections.abc import Iterator
from typing import Any

import tensorflow_datasets as tfds

from attention_lab.data.builders import published

_COPY = "https://raw.githubusercontent.com/pytorch/examples/77f55b912142e11fcfdf5b530231fb9c52f181e8"
_FOLDER = f"{_COPY}/word_language_model/data/wikitext-2"
TRAIN, VALIDATION, TEST = FILES = (
  published.File(
    f"{_FOLDER}/train.txt",
    10_797_148,
    "9e9fa1ad55b1c2c95b08e37dd8e653f638fac2c6de904b79e813611eefbc985f",
    ("wiki.train.tokens",),
  ),
  published.File(
    f"{_FOLDER}/valid.txt",
    1_121_681,
    "f0737ed31fc1329026e95cb8b98e19c2a182c39c240ab909dc31abf2f8af58e8",
    ("wiki.valid.tokens",),
  ),
  published.File(
    f"{_FOLDER}/test.txt",
    1_256_449,
    "d790b833ef8cf03a90db7bf1271b7520b83c45ce07ba3c1a9699df81e239eca0",
    ("wiki.test.tokens",),
  ),
)


class Wikitext2(tfds.core.GeneratorBasedBuilder):
  """WikiText-2 in words, line by line, in the published order."""

  VERSION = tfds.core.Version("1.0.0")
  url_infos = published.url_infos(FILES)

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
      builder=self,
      description="Good and featured articles of Wikipedia, in words; rare words are <unk>. One example is one line.",
      features=tfds.features.FeaturesDict({"text": tfds.features.Text()}),
      homepage="https://arxiv.org/abs/1609.07843",
      license="CC BY-SA 3.0",
      citation="Merity, Xiong, Bradbury, Socher. Pointer Sentinel Mixture Models. ICLR 2017.",
      disable_shuffling=True,
    )

  def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
    parts = {"train": TRAIN, "validation": VALIDATION, "test": TEST}
    paths = dl_manager.download({split: file.url for split, file in parts.items()})
    return {split: self._generate_examples(path) for split, path in paths.items()}

  def _generate_examples(self, path: Any) -> Iterator[tuple[int, dict[str, str]]]:
    text = path.read_bytes().decode("utf-8").removesuffix("\n")
    for number, line in enumerate(text.split("\n")):
      yield number, {"text": line}
