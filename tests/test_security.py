"""What others made is read, never run: files, archives, records and notebooks."""

import ast
import dataclasses
import functools
import gzip
import importlib.util
import io
import json
import os
import pickle
import platform
import re
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from packaging.requirements import Requirement

from superpos import hub
from superpos.cli import main as command_line
from superpos.data import DataNotFound, load_images
from superpos.language_sites import ModelNotFound, load_model
from superpos.magnitudes import unpacked
from superpos.matrix_file import UnreadableMatrix, read_matrix
from superpos.pretrained import read_dictionary
from superpos.provenance import provenance
from superpos.robust_training import train_members
from superpos.sae import SAE

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10, where pytest brings tomli
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


# Source code


DEMANDED = {
    "torch.load": {"weights_only": True},
    "numpy.load": {"allow_pickle": False},
    "transformers.AutoTokenizer.from_pretrained": {"trust_remote_code": False},
    "transformers.AutoModelForCausalLM.from_pretrained": {
        "trust_remote_code": False,
        "weights_only": True,
    },
}
"""Calls that could run what a file holds, and the arguments with which they do not."""
HARMLESS = {
    "json.load", "json.loads", "tomllib.load", "tomllib.loads", "superpos.sae.SAE.load",
    "sae_lens.SAE.load_from_disk", "sae_lens.SAE.from_pretrained",
}  # fmt: skip
"""Other calls named so, none of which unpickles."""
LOADERS = re.compile(
    r"(full_|unsafe_)?load(s|_all|_from_disk)?|from_pretrained|read_pickle|Unpickler"
)
FORBIDDEN = {
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "torch.hub.load",
    "torch.jit.load", "shutil.unpack_archive",
}  # fmt: skip
PICKLES = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal"}


def sources():
    """Every file of code that is not a test, and its text."""
    for folder in ("superpos", "book", "benchmarks"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path.relative_to(ROOT), path.read_text(encoding="utf-8")
    for path in NOTEBOOKS:
        yield path.relative_to(ROOT), "\n".join(cells(path))


@functools.cache
def cells(path):
    """Source of every code cell of a notebook."""
    read = json.loads(path.read_bytes())["cells"]
    return ["".join(cell["source"]) for cell in read if cell["cell_type"] == "code"]


def full_names(tree):
    """What names of a file stand for, by its imports."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for each in node.names:
                found[each.asname or each.name.split(".")[0]] = (
                    each.name if each.asname else each.name.split(".")[0]
                )
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            module = f"superpos.{module}" if node.level else module
            found |= {each.asname or each.name: f"{module}.{each.name}" for each in node.names}
    return found


def full_name(node, names):
    """What is called, such as `torch.load`; what is no name on the way there is left out."""
    if isinstance(node, ast.Attribute):
        return f"{full_name(node.value, names)}.{node.attr}"
    return names.get(node.id, node.id) if isinstance(node, ast.Name) else ""


def faults(source):
    """Lines of a source that could run what a file holds, and why."""
    tree = ast.parse(source)
    names = full_names(tree)
    found = []
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            found += [f"{node.lineno}: imports {name}" for name in imports_of_pickle(node)]
        if not isinstance(node, ast.Call):
            continue
        name = full_name(node.func, names)
        last = name.rsplit(".", 1)[-1]
        given = {each.arg: getattr(each.value, "value", ...) for each in node.keywords}
        if name in DEMANDED:
            wrong = {k: v for k, v in DEMANDED[name].items() if given.get(k) is not v}
            found += [
                f"{node.lineno}: {name} without {key}={value}" for key, value in wrong.items()
            ]
        elif name in FORBIDDEN or (LOADERS.fullmatch(last) and name not in HARMLESS):
            found.append(f"{node.lineno}: calls {name}")
        if last in ("extract", "extractall") and given.get("filter") != "data":
            found.append(f"{node.lineno}: {last} without filter='data'")
        if given.get("shell") or given.get("trust_remote_code") not in (None, False):
            found.append(f"{node.lineno}: {name} with shell or trust_remote_code")
    return found


def imports_of_pickle(node):
    """Modules that unpickle among those imported; the name of an error does not."""
    if isinstance(node, ast.ImportFrom) and not node.level:
        names = {each.name for each in node.names} - {"UnpicklingError"}
        return [node.module] if node.module.split(".")[0] in PICKLES and names else []
    names = [] if isinstance(node, ast.ImportFrom) else [each.name for each in node.names]
    return [name for name in names if name.split(".")[0] in PICKLES]


def test_no_code_runs_what_a_file_holds():
    found = {str(path): lines for path, text in sources() if (lines := faults(text))}
    piped = found.pop("superpos/worker.py")  # which reads no file, see below
    assert found == {}
    assert all("cloudpickle" in line for line in piped)


def test_a_worker_unpickles_only_what_its_own_pipe_brings():
    text = (ROOT / "superpos" / "worker.py").read_text(encoding="utf-8")
    arguments = [
        ast.unparse(node.args[0])
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "cloudpickle.loads"
    ]
    assert arguments == ["pipe.recv_bytes()"] * 2


@pytest.mark.parametrize(
    "source",
    [
        "import torch\ntorch.load(path)",
        "import torch\ntorch.load(path, weights_only=False)",
        "import torch\ntorch.load(path, weights_only=safe)",
        "from torch import load\nload(path)",
        "import numpy as np\nnp.load(path)",
        "import numpy as np\nnp.load(path, allow_pickle=True)",
        "import numpy\nnumpy.load(path, allow_pickle=1)",
        "import pickle",
        "from pickle import loads",
        "import cloudpickle as json",
        "import joblib\njoblib.load(path)",
        "import pandas as pd\npd.read_pickle(path)",
        "import yaml\nyaml.load(text, Loader=yaml.SafeLoader)",
        "import yaml\nyaml.unsafe_load(text)",
        "eval(text)",
        "exec(text)",
        "__import__(name)",
        "import torch\ntorch.hub.load(name)",
        "from transformers import AutoModelForCausalLM\nAutoModelForCausalLM.from_pretrained(name)",
        "from transformers import AutoTokenizer\n"
        "AutoTokenizer.from_pretrained(name, trust_remote_code=True)",
        "import datasets\ndatasets.load_dataset(name, trust_remote_code=True)",
        "import os\nos.system(text)",
        "import subprocess\nsubprocess.run(text, shell=True)",
        "import tarfile\ntarfile.open(path).extractall(folder)",
        "import shutil\nshutil.unpack_archive(path, folder)",
    ],
)
def test_code_that_runs_what_a_file_holds_is_found(source):
    assert faults(source)


# Files


class Evil:
    """An object that makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.mkdir, (self.path,))


@pytest.fixture
def mark(tmp_path):
    """A folder that is made only by code that a file brought along."""
    pickle.loads(pickle.dumps(Evil(tmp_path / "mark")))
    assert (tmp_path / "mark").is_dir()  # it does run where it is let
    (tmp_path / "mark").rmdir()
    yield tmp_path / "mark"
    assert not (tmp_path / "mark").exists()


def bare(mark):
    return pickle.dumps(Evil(mark), protocol=2)


def saved(mark):
    stream = io.BytesIO()
    torch.save({"bias": torch.ones(2), "encoder": Evil(mark)}, stream)
    return stream.getvalue()


def array(mark):
    stream = io.BytesIO()
    np.save(stream, np.array([[Evil(mark)]], dtype=object), allow_pickle=True)
    return stream.getvalue()


def one_sentence(message, *words):
    """Whether a message is one line that says all these words, and asks nobody to let code run."""
    assert "\n" not in message.strip() and re.search(r"\.\s+[A-Z]", message) is None, message
    assert all(word in message for word in words), message
    assert not re.search(r"weights_only|trust_remote_code|allow_pickle=True", message), message


@pytest.mark.parametrize("content", [bare, saved, array])
@pytest.mark.parametrize("name", ["ae.pt", "sae.safetensors"])
def test_a_dictionary_that_would_run_code_is_refused(tmp_path, mark, name, content):
    path = tmp_path / name
    path.write_bytes(content(mark))
    with pytest.raises(ValueError) as caught:
        read_dictionary(path)
    one_sentence(str(caught.value), str(path), "no ")
    with pytest.raises(ValueError) as caught:
        SAE.load(path)
    one_sentence(str(caught.value), str(path), "no safetensors file")


@pytest.mark.parametrize("content", [bare, saved, array])
@pytest.mark.parametrize("name", ["x.npy", "x.csv"])
def test_a_matrix_that_would_run_code_is_refused(tmp_path, mark, name, content):
    (tmp_path / name).write_bytes(content(mark))
    for arguments in [(str(tmp_path / name),), (name, content(mark))]:
        with pytest.raises(UnreadableMatrix) as caught:
            read_matrix(*arguments)
        one_sentence(str(caught.value), name)


@pytest.mark.parametrize("content", [bare, saved, array])
def test_data_and_weights_of_the_command_line_run_no_code(tmp_path, mark, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    np.save("good.npy", np.ones((4, 2), "f4"))
    Path("evil.npy").write_bytes(content(mark))
    Path("evil.safetensors").write_bytes(content(mark))
    model = "torch.nn:Identity"
    for arguments, option in [
        ([model, "evil.npy"], "DATA"),
        ([model, "good.npy", "--weights", "evil.safetensors"], "--weights"),
    ]:
        result = CliRunner().invoke(command_line, ["measure", *arguments])
        assert result.exit_code == 2 and f"Invalid value for {option}" in result.output
        assert "Traceback" not in result.output


@pytest.fixture(scope="module")
def language_model(tmp_path_factory):
    """The folder of a model with its tokenizer."""
    from tokenizers import Tokenizer, models
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("model")
    config = GPTNeoXConfig(
        vocab_size=4, hidden_size=4, intermediate_size=4, num_hidden_layers=1,
        num_attention_heads=1,
    )  # fmt: skip
    GPTNeoXForCausalLM(config).save_pretrained(folder)
    words = Tokenizer(models.WordLevel({"a": 0, "?": 1}, unk_token="?"))
    PreTrainedTokenizerFast(tokenizer_object=words).save_pretrained(folder)
    return folder


def copied(folder, target):
    """Copies of a folder's files."""
    target.mkdir()
    for path in folder.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


@pytest.mark.parametrize("content", [bare, saved])
@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors"])
def test_a_language_model_that_would_run_code_is_refused(
    language_model, tmp_path, mark, name, content
):
    folder = copied(language_model, tmp_path / "copy")
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(content(mark))
    with pytest.raises(ModelNotFound) as caught:
        load_model(str(folder))
    one_sentence(str(caught.value), str(folder), "plain arrays", "no code")


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_code_that_a_language_model_brings_along_is_neither_run_nor_asked_about(
    language_model, tmp_path, mark, monkeypatch, file
):
    folder = copied(language_model, tmp_path / "copy")
    (folder / "evil.py").write_text(f"import os\nos.mkdir({str(mark)!r})\nclass Own: pass\n")
    content = json.loads((folder / file).read_text())
    own = {"AutoConfig": "evil.Own", "AutoModelForCausalLM": "evil.Own"}
    own |= {"AutoTokenizer": ["evil.Own", "evil.Own"]}
    content |= {"auto_map": own, "model_type": "evil", "tokenizer_class": "Own"}
    (folder / file).write_text(json.dumps(content))
    asked = []
    monkeypatch.setattr("builtins.input", lambda text: asked.append(text) or "y")
    try:
        load_model(str(folder))
    except ModelNotFound as error:
        one_sentence(str(error), str(folder), "no code")
    assert not asked


@pytest.mark.parametrize("content", [bare, saved])
def test_image_sets_that_would_run_code_count_as_damaged(tmp_path, mark, content):
    for name in ("processed/training.pt", "processed/test.pt"):  # as torchvision kept them once
        path = tmp_path / "MNIST" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content(mark))
    batches = tmp_path / "cifar-10-batches-py"
    batches.mkdir()
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta"):
        (batches / name).write_bytes(content(mark))  # which torchvision unpickles, if it is its own
    for name in ("mnist", "cifar10"):
        with pytest.raises(DataNotFound, match=f"No intact {name} files"):
            load_images(name, directory=tmp_path)


@pytest.mark.parametrize("content", [bare, saved])
def test_a_checkpoint_of_training_that_would_run_code_is_refused(tmp_path, mark, content):
    from superpos.experiments import adversarial
    from superpos.settings import load_profile

    settings = adversarial.Settings(**load_profile("adversarial", "quick"))
    images = load_images("digits", classes=2, train_size=60)
    training = dataclasses.replace(adversarial.conditions(settings)[0].training, held_out=20)
    for number in range(len(training.members)):
        (tmp_path / f"members_{number}_1.pt").write_bytes(content(mark))
    with pytest.raises(ValueError) as caught:
        train_members(training, images, tmp_path, at_once=1)
    one_sentence(str(caught.value), str(tmp_path), "no checkpoint", "remove it")


# Archives


OUT = ["../../evil/ae.pt", "a/../../evil/ae.pt", "/{outside}/evil/ae.pt"]


def outside(folder):
    """Files beside the folders `into` and `work`."""
    found = [path for path in folder.rglob("*") if path.is_file() or path.is_symlink()]
    return [
        path.name for path in found if path.relative_to(folder).parts[0] not in ("into", "work")
    ]


def tar_of(path, member, kind):
    """An archive with a good file, and one that leads out of where it is unpacked."""
    with tarfile.open(path, "w:gz") as archive:
        good = tarfile.TarInfo("package/good.txt")
        archive.addfile(good, io.BytesIO())
        info = tarfile.TarInfo(member)
        if kind == "file":
            info.size = 4
            archive.addfile(info, io.BytesIO(b"evil"))
            return
        info.name, info.linkname = "package/link", os.path.dirname(member)
        info.type = tarfile.SYMTYPE if kind == "symlink" else tarfile.LNKTYPE
        archive.addfile(info)
        through = tarfile.TarInfo("package/link/ae.pt")
        through.size = 4
        archive.addfile(through, io.BytesIO(b"evil"))


@pytest.fixture
def vendor(monkeypatch):
    spec = importlib.util.spec_from_file_location("vendor", ROOT / "book" / "vendor.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("kind", ["file", "symlink", "link"])
@pytest.mark.parametrize("member", OUT)
def test_a_package_of_scripts_is_unpacked_nowhere_but_in_its_folder(
    tmp_path, monkeypatch, vendor, member, kind
):
    member = member.format(outside=tmp_path)
    (tmp_path / "evil").mkdir()

    class Work:
        def __enter__(self):
            (tmp_path / "work" / "deep").mkdir(parents=True)
            return str(tmp_path / "work" / "deep")

        def __exit__(self, *_):
            pass

    def pack(command, *, cwd, **_):
        tar_of(Path(cwd) / "package.tgz", member, kind)

    monkeypatch.setattr(vendor.tempfile, "TemporaryDirectory", Work)
    monkeypatch.setattr(vendor.subprocess, "run", pack)
    with pytest.raises((tarfile.TarError, OSError)):
        vendor.fetch("package@1", {"absent.js": "absent.js"}, tmp_path / "into")
    assert outside(tmp_path) == []
    assert not (tmp_path / "work" / "evil").exists()


@pytest.mark.parametrize("member", OUT)
def test_dictionaries_are_unpacked_nowhere_but_in_their_folder(tmp_path, member):
    archive = tmp_path / "into.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("dictionaries/good/ae.pt", b"good")
        file.writestr(member.format(outside=tmp_path), b"evil")
    with pytest.raises(ValueError) as caught:
        hub.unpack(archive, tmp_path / "into" / "deep")
    one_sentence(str(caught.value), "leads out of")
    assert outside(tmp_path) == ["into.zip"] and not (tmp_path / "into").exists()


def test_links_in_an_archive_of_dictionaries_lead_nowhere(tmp_path):
    link = zipfile.ZipInfo("dictionaries/link")
    link.external_attr = 0o120777 << 16
    own = zipfile.ZipInfo("dictionaries/own/ae.pt")
    own.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "into.zip", "w") as file:
        file.writestr(link, str(tmp_path))
        file.writestr("dictionaries/link/ae.pt", b"evil")
        file.writestr(own, str(tmp_path / "evil"))
    hub.unpack(tmp_path / "into.zip", tmp_path / "into")
    assert outside(tmp_path) == ["into.zip"]
    assert not any(path.is_symlink() for path in (tmp_path / "into").rglob("*"))


def test_a_link_that_stands_in_the_folder_is_not_followed_out_of_it(tmp_path):
    (tmp_path / "into").mkdir()
    (tmp_path / "into" / "dictionaries").symlink_to(tmp_path, target_is_directory=True)
    with zipfile.ZipFile(tmp_path / "into.zip", "w") as file:
        file.writestr("dictionaries/evil/ae.pt", b"evil")
    with pytest.raises(ValueError, match="leads out of"):
        hub.unpack(tmp_path / "into.zip", tmp_path / "into")
    assert outside(tmp_path) == ["into.zip"]


@pytest.mark.parametrize("name", ["cifar10", "mnist"])
@pytest.mark.parametrize("member", OUT)
def test_archives_of_images_that_are_not_the_right_ones_are_not_unpacked(
    tmp_path, monkeypatch, name, member
):
    def download(url, target, *_, **__):
        tar_of(target, member.format(outside=tmp_path), "file")
        if name == "mnist":
            with gzip.open(target, "wb") as file:
                file.write(b"evil")

    monkeypatch.setattr("torchvision.datasets.utils._get_redirect_url", lambda url, **_: url)
    monkeypatch.setattr("torchvision.datasets.utils._urlretrieve", download)
    into = tmp_path / "into" / "deep"
    with pytest.raises(DataNotFound, match=f"No intact {name} files"):
        load_images(name, directory=into, download=True)
    assert outside(tmp_path) == [] and not (tmp_path / "into" / "evil").exists()
    assert all(path.suffix == ".gz" for path in into.rglob("*") if path.is_file())


# Records and outputs


PATH = re.compile(
    r"(?<![\w.:/<-])(~|/(home|root|Users|tmp|var|opt|usr|etc|mnt|srv|work|data|workspace|private)\b)"
    r"(?=/)|\b[A-Za-z]:\\\\?[A-Za-z]|\bfile://"
)
TOKEN = re.compile(
    r"\b(hf_|gh[opsur]_|github_pat_|glpat-|sk-|xox[abp]-|AKIA|AIza|pypi-)[\w-]{12,}"
    r"|\beyJ[\w-]{10,}\.|-----BEGIN|://[^/\s:@]+:[^/\s:@]+@"
)
SECRET = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|API_?KEY")
DIGESTS = {"key", "checksum", "commit", "commits", "weights", "digest"}
"""Fields that hold hexadecimal digits."""


def strings(value, field=""):
    """Every text in a record with the field it stands in, names of fields too."""
    if isinstance(value, dict):
        for name, each in value.items():
            yield from strings(name)
            yield from strings(each, name)
    elif isinstance(value, list):
        for each in value:
            yield from strings(each, field)
    elif isinstance(value, str):
        yield field, value


def private(text):
    """What in a text tells of the machine or the person that made it."""
    found = [match.group() for kind in (PATH, TOKEN) for match in kind.finditer(text)]
    return found + [
        word for word in _of_here() if re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text)
    ]


def _of_here():
    """Names and secrets of this machine that are no ordinary words."""
    names = {platform.node(), str(Path.home())}
    secrets = {value for name, value in os.environ.items() if SECRET.search(name)}
    return [word for word in names if re.search(r"[\d.-]", word)] + [
        w for w in secrets if len(w) > 7
    ]


def is_wrong(field, text):
    """Whether a text should not stand in a field of a record."""
    if field == "codes":
        return not torch.isfinite(unpacked(text)).all()
    if field in DIGESTS:
        return not re.fullmatch(r"[0-9a-f]{16,64}(-dirty)?", text)
    return bool(private(text) or re.search(r"(?=\S*\d)(?=\S*[A-Za-z])[A-Za-z0-9+/_=-]{32,}", text))


def test_committed_records_hold_nothing_private():
    paths = sorted((ROOT / "results" / "workstation").rglob("*.json"))
    assert len(paths) > 300
    held = {}
    for path in paths:
        held |= dict.fromkeys(strings(json.loads(path.read_bytes())), path.name)
    assert {own: name for own, name in held.items() if is_wrong(*own)} == {}


@pytest.mark.parametrize(
    "text",
    [
        "/home/somebody/data.npy", "read from /tmp/x", "~/data", "C:\\Users\\me", "file:///x",
        "hf_abcdefghijklmnopqrst", "ghp_abcdefghijklmnopqrst", "https://me:password@host/x",
        "-----BEGIN PRIVATE KEY-----", "0123456789abcdef0123456789abcdef01234567",
    ],
)  # fmt: skip
def test_a_record_with_something_private_is_noticed(text):
    for record in ({"rows": [{"note": text}]}, {"rows": [{text: 1}]}, {"notes": ["", text]}):
        assert [own for own in strings(record) if is_wrong(*own)]
    assert is_wrong("commit", text) or len(text) == 40


def test_how_a_result_was_made_tells_nothing_private(monkeypatch):
    monkeypatch.setenv("SOME_TOKEN", "a-secret-word")
    assert private("it is a-secret-word") == ["a-secret-word"]
    assert [own for own in strings(provenance()) if is_wrong(*own)] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_with_its_outputs_holds_nothing_private(path):
    text = re.sub(r"[A-Za-z0-9+/=]{200,}", "", path.read_text(encoding="utf-8"))  # images
    assert private(text) == []


# Notebooks


PLAIN = {"collections", "dataclasses", "functools", "itertools", "math", "operator", "statistics"}
"""Modules of Python itself that only compute."""
CALLED = {"scikit-learn": "sklearn", "pyyaml": "yaml"}


def imported(tree):
    """Names of the modules that a file imports, without those inside them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (each.name.split(".")[0] for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module.split(".")[0]


def reaches_out(source):
    """What a cell does beyond computing with what the library and its dependencies give."""
    try:
        tree = ast.parse(source)
    except SyntaxError as error:  # such as !shell or %magic
        return [f"no Python: {error.text}"]
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needs = {Requirement(line).name for line in declared["dependencies"]}
    allowed = {"superpos", *PLAIN, *(CALLED.get(name, name) for name in needs)}
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    names |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    reach = {"get_ipython", "system", "popen", "subprocess", "urlopen", "open", "__builtins__"}
    return sorted({*imported(tree)} - allowed | names & reach) + faults(source)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_only_what_it_shows(path):
    assert [found for source in cells(path) if (found := reaches_out(source))] == []


@pytest.mark.parametrize(
    "source",
    [
        "!ls", "%load_ext x", "%%bash\nls", "x = !ls", "import os\nos.system('ls')",
        "import subprocess", "from urllib.request import urlopen", "import requests",
        "get_ipython().run_cell('1')", "open('x')", "import superpos, somewhere", "eval('1')",
    ],
)  # fmt: skip
def test_a_cell_that_reaches_out_is_noticed(source):
    assert reaches_out(source)
