"""bAbI, 20 tasks of question answering, for TFDS: 1,000 / 1,000 questions of each task for training and test.

Weston et al. 2015, "Towards AI-Complete Question Answering"; CC BY 3.0. Release tasks_1-20_v1-2, folder en (1,000
questions a task, in English), here from the copy in harvardnlp/MemN2N; each digest is that of one file of the release,
unpacked. An example is one question, in the order of tasks and files:

  task      int32, 1 to 20           story     the sentences told so far, without the questions
  question  text                     answer    one word, or several joined by commas
  support   int32s, the sentences of `story` (from 0) that the answer rests on
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from attention_lab.data.builders import published

_COPY = "https://raw.githubusercontent.com/harvardnlp/MemN2N/f32f9531ba4230a7accc06b467c53d4d7322f62f"
_FOLDER = f"{_COPY}/babi_data/en"
_RELEASE = """
qa1_single-supporting-fact_train.txt 94346 c64ba9b1a49bbb111ffc4cd2ae4f129d25c012399dd7ade9679eea464b9afb05
qa1_single-supporting-fact_test.txt 94477 55acf66cef2f6d798e2aa1d056e1ec8f24e910ea9215b639450574321132959b
qa2_two-supporting-facts_train.txt 177412 a4978af5bc0dc30191810e7c9949aaa6eae939ed0f6beb9fcb5f4330c2a27860
qa2_two-supporting-facts_test.txt 179835 eff93fb9cd81ba02eb765772cf7cc269769ed44ec71cbbbc19cfb16ee5eba0f6
qa3_three-supporting-facts_train.txt 529204 a6e78019f36a02a7ed71fe6aaded0b563ff09c8deec392931801fcd9c6af4d60
qa3_three-supporting-facts_test.txt 526527 17795c977100baf8188f386522ae301b62d6c1a13efc01b3aea781e588b4d57f
qa4_two-arg-relations_train.txt 117470 c9370502d85fa382f32d1fea2111e817f81ae9e3e79eb2924a1a5392a90417fa
qa4_two-arg-relations_test.txt 117394 07f0ca18ddeea9eed4ba6d59e162adcb0ce44815721114b3540d92825509331e
qa5_three-arg-relations_train.txt 199473 086cd59c3ca9677bfac3d6a22ca5853c76a5c1fbae3159c7c4a6aef759a74ec0
qa5_three-arg-relations_test.txt 207037 ec825c1c8a76e63a31f0d7a7763cd63740e98332fa9bdf246a19068949bd5f97
qa6_yes-no-questions_train.txt 100561 5a133115ee35d475776df703ff605d145b11effbcdbf7e74861f9d5639246a5a
qa6_yes-no-questions_test.txt 100109 b108b16f1eccbd1c24df6dca2649079a7b2f10af7fd12d4c45a3393802de59e3
qa7_counting_train.txt 135895 dca03bd91876951c49f1c971c83c9dd55404de60201b7b6435451cf7ddb4751c
qa7_counting_test.txt 130136 a74d1f2b91329b2bae814d41cdac2fbdfdf0328562b7d8afa9a0fa576d461e27
qa8_lists-sets_train.txt 124487 058604df6f9440458317e8ae685d2b7b84261e1a80b4d6410a9140d16f81bf06
qa8_lists-sets_test.txt 126863 362a653c821a580fa315a85243b4f03bfa06fa7e0269b6f8e596f8fe6911646a
qa9_simple-negation_train.txt 97310 0c3b89921af0caea1c4059ee3f7b7f2a88869f924195a428da37820446b8c49f
qa9_simple-negation_test.txt 97208 63590aff3f89993db409f0e9a9eb39c2a5b9d5efff99b255d800a891b0044d9f
qa10_indefinite-knowledge_train.txt 99217 0b7691689447bab05476c5b48c44999b41e747c3978df69c18fdd87b60d6e8b3
qa10_indefinite-knowledge_test.txt 99632 fde8f20ed0b3ba979058ed391a566af34653f23baab5b2793ee37f87ef4e88b7
qa11_basic-coreference_train.txt 104520 9468de9a1f256f43dfda693a5d07182d21149a82b65f7c2451c64e9cff5eb138
qa11_basic-coreference_test.txt 104800 46f3290d0158ce1285a40cd2d793f5a65f86ae5000226e165cbc85a3dfeb2f6f
qa12_conjunction_train.txt 114560 45c2764bb2d3c8f699d35e9d9aa7958fcd96379c6e907116cdf74526c108bb25
qa12_conjunction_test.txt 114489 6437718f8f9801ce345869e910b896836cdc6fd2d01dc7b4d2df49730703b4b1
qa13_compound-coreference_train.txt 116516 533a391edbda743e4c99504de88b40cdded5b1d5ef454d1390f0863f748a4cc9
qa13_compound-coreference_test.txt 116444 76a25b684f23c9cc473d8cd1465506168b9a1ec8891cfc59d0bbd87e6a064990
qa14_time-reasoning_train.txt 152131 b7561cbc624205c9c2fdbb8c843cfa8ad90edd65e78bb223fc6dea8113662df8
qa14_time-reasoning_test.txt 151420 e3f0b19858ffbec3ed1e49076cc4d1295a89ce146c50318b862f13f202b3caf2
qa15_basic-deduction_train.txt 87688 e856ebfdcce4dd7d617c1d10f985e96a0850c0ca18e9a19a017cb710d135ed3d
qa15_basic-deduction_test.txt 87769 32b77e117fe9acf5f94906684e3b5206de0108e646c76e1da3e022896ec7ee94
qa16_basic-induction_train.txt 208334 20121005137e3d4b061a086eb177a456303d5742b764eb8da2d0e480b6af4d28
qa16_basic-induction_test.txt 208208 4a11e55366f2a5a859b5a81f683ee23801bdbe71ef984e51adb976bd053e8dcf
qa17_positional-reasoning_train.txt 68596 20083bf56ff74f0e7cf5e3e2f8c3905cdb8ef09293c3e8cf7a96ed8b45ae2277
qa17_positional-reasoning_test.txt 68578 9e1e0250ed4ec1831757fab26c04138f81ea557ebf6976a220db879cbed04bac
qa18_size-reasoning_train.txt 104815 18b7dcf52c9a0e87e4e7dd3d65b7e5a630de039645f52a1294197af7481d739d
qa18_size-reasoning_test.txt 103626 d34f70eb7228a276fcb3a7854174fe562c5634f4fb454a39fc3d1ad9934be3ef
qa19_path-finding_train.txt 247496 dcb788352a56effb7bea1449128f31cc9c342c8c327b6df2caeee0e379e6ad3a
qa19_path-finding_test.txt 247449 023e391f0d7f79c9e6ae1c46c093e2d0dbd50ab8fbd8965e037a75e3614c20e5
qa20_agents-motivations_train.txt 67892 29580ad55fb7b4b29ba014696056cc68f8f347dac3be88470fd692ad60150398
qa20_agents-motivations_test.txt 67963 bd3bde3788ac14ba0ae095078f7b820fbd2bfa6a34dba9d1d46a34afde9c2729
"""  # name, bytes and SHA-256 of each file
SPLITS = ("train", "test")
FILES = tuple(
  published.File(f"{_FOLDER}/{name}", int(size), sha256)
  for name, size, sha256 in map(str.split, _RELEASE.strip().split("\n"))
)


class Babi(tfds.core.GeneratorBasedBuilder):
  """bAbI v1.2, English, 1,000 questions a task, in the published order."""

  VERSION = tfds.core.Version("1.0.0")
  url_infos = published.url_infos(FILES)

  def _info(self) -> tfds.core.DatasetInfo:
    text, texts = tfds.features.Text(), tfds.features.Sequence(tfds.features.Text())
    return tfds.core.DatasetInfo(
      builder=self,
      description="Questions about short generated stories: 20 tasks, each of which asks for another skill.",
      features=tfds.features.FeaturesDict(
        {"task": np.int32, "story": texts, "question": text, "answer": text}
        | {"support": tfds.features.Sequence(np.int32)}
      ),
      homepage="https://research.facebook.com/downloads/babi/",
      license="CC BY 3.0",
      citation="Weston, Bordes, Chopra, Rush, van Merrienboer, Joulin, Mikolov. arXiv:1502.05698.",
      disable_shuffling=True,
    )

  def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
    paths = dl_manager.download({file.name: file.url for file in FILES})
    ordered = {split: [paths[file.name] for file in FILES if file.name.endswith(f"_{split}.txt")] for split in SPLITS}
    return {split: self._generate_examples(files) for split, files in ordered.items()}

  def _generate_examples(self, paths: Any) -> Iterator[tuple[int, dict[str, Any]]]:
    number = 0
    for task, path in enumerate(paths, 1):
      for example in questions(path.read_bytes().decode("utf-8")):
        yield number, {"task": task} | example
        number += 1


def questions(text: str) -> Iterator[dict[str, Any]]:
  """The questions of one file: lines are numbered within a story; those with tabs are question, answer, support."""
  story: dict[str, str] = {}
  for line in text.removesuffix("\n").split("\n"):
    number, told = line.split(" ", 1)
    if number == "1":
      story = {}
    if "\t" not in told:
      story[number] = told
      continue
    question, answer, support = told.split("\t")
    numbers = list(story)
    yield {
      "story": list(story.values()),
      "question": question.strip(),
      "answer": answer,
      "support": [numbers.index(line) for line in support.split()],
    }
