"""Bundles that would run, fetch or reach what they should not: each must be refused, and nothing of it may run."""

import hashlib
import json
import pickle
import sys
import types
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import monai_ext
from monai_ext.audit import check_bundle
from monai_ext.audit.expressions import as_evaluated
from monai_ext.audit.monai_names import full_names
from monai_ext.base import InputError
from monai_ext.cli.app import app

OURS = ["aa_clip_lesion_localization", "hi_end_mae_ct_pretrain", "hi_end_mae_ct_segmentation"]
ZOO = {
    "imports": ["$import glob", "$import os", "$import torch"],
    "bundle_root": ".",
    "output_dir": "$@bundle_root + '/eval'",
    "dataset_dir": "/workspace/data/Task09_Spleen",
    "datalist": "$list(sorted(glob.glob(os.path.join(@dataset_dir, 'imagesTs', '*.nii.gz'))))",
    "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
    "network_def": {"_target_": "monai.networks.nets.UNet", "spatial_dims": 3, "in_channels": 1, "out_channels": 2,
                    "channels": [16, 32], "strides": [2], "norm": "batch"},
    "network": "$@network_def.to(@device)",
    "preprocessing": {"_target_": "monai.transforms.Compose", "transforms": [
        {"_target_": "monai.transforms.LoadImaged", "keys": "image", "reader": "ITKReader"},
        {"_target_": "monai.transforms.ScaleIntensityRanged", "keys": "image", "a_min": -57, "a_max": 164,
         "b_min": 0, "b_max": 1, "clip": True}]},
    "dataset": {"_target_": "monai.data.Dataset", "data": "$[{'image': i} for i in @datalist]",
                "transform": "@preprocessing"},
    "dataloader": {"_target_": "monai.data.DataLoader", "dataset": "@dataset", "batch_size": 1, "num_workers": 4},
    "inferer": {"_target_": "monai.inferers.SlidingWindowInferer", "roi_size": [96, 96, 96], "overlap": 0.5},
    "postprocessing": {"_target_": "monai.transforms.Compose", "transforms": [
        {"_target_": "monai.transforms.Activationsd", "keys": "pred", "softmax": True},
        {"_target_": "monai.transforms.SaveImaged", "keys": "pred", "output_dir": "@output_dir"}]},
    "handlers": [{"_target_": "monai.handlers.CheckpointLoader", "load_path": "$@bundle_root + '/models/model.pt'",
                  "load_dict": {"model": "@network"}}],
    "evaluator": {"_target_": "monai.engines.SupervisedEvaluator", "device": "@device",
                  "val_data_loader": "@dataloader", "network": "@network", "inferer": "@inferer",
                  "key_val_metric": {"val_acc": {"_target_": "monai.handlers.MeanDice",
                                                 "output_transform": "$monai.handlers.from_engine(['pred', 'label'])"}},
                  "amp": True},
    "state": "$torch.load(@bundle_root + '/models/model.pt', weights_only=True)",
    "initialize": ["$setattr(torch.backends.cudnn, 'benchmark', True)", "$monai.utils.set_determinism(seed=1)"],
    "run": ["$@evaluator.run()"],
}  # fmt: skip
META = {"version": "0.1.0", "monai_version": "1.4.0", "references": ["Kerfoot et al. https://arxiv.org/abs/1"]}
LOGGING = """[loggers]
keys=root
[handlers]
keys=console
[formatters]
keys=plain
[logger_root]
level=INFO
handlers=console
[handler_console]
class={kind}
args={arguments}
formatter=plain
[formatter_plain]
format=%(asctime)s %(message)s
"""


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    """A bundle like those of MONAI's model zoo, with weights, their checksum and a list of large files."""
    root = tmp_path / "zoo_bundle"
    for folder in ("configs", "models", "docs"):
        (root / folder).mkdir(parents=True)
    (root / "configs/inference.json").write_text(json.dumps(ZOO))
    (root / "configs/metadata.json").write_text(json.dumps(META))
    (root / "configs/logging.conf").write_text(LOGGING.format(kind="StreamHandler", arguments="(sys.stdout,)"))
    (root / "docs/README.md").write_text("# Model")
    torch.save(torch.nn.Linear(2, 3).state_dict(), root / "models/model.pt")
    checksum = hashlib.sha256((root / "models/model.pt").read_bytes()).hexdigest()
    (root / "models/model.pt.sha256").write_text(f"{checksum}  model.pt\n")
    lines = ["large_files:", "- path: models/model.pt", "  url: https://example.org/model.pt", "  hash_type: sha256"]
    (root / "large_files.yml").write_text("\n".join([*lines, f"  hash_val: {checksum}"]))
    return root


def config(root: Path, **entries: object) -> None:
    (root / "configs/inference.json").write_text(json.dumps({**ZOO, **entries}))


def calls(root: Path, target: str, /, **arguments: object) -> None:
    config(root, bad={"_target_": target, **arguments})


class _Calls:
    def __init__(self, function: object, *arguments: object) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple:
        return self.function, self.arguments


def save_pickle(path: Path, protocol: int) -> None:
    path.write_bytes(pickle.dumps({"a": _Calls(eval, "1 + 1")}, protocol))


def old_torch(path: Path) -> None:
    with path.open("wb") as handle:
        for content in (0x1950A86A20F9469CFC6C, 1001):
            pickle.dump(content, handle, 2)
        handle.write(pickle.dumps(_Calls(eval, "1"), 0))


def script(path: Path) -> None:
    torch.jit.save(torch.jit.script(torch.nn.ReLU()), path)


def nested(depth: int) -> str:
    return '{"a": ' * depth + "1" + "}" * depth


def bomb() -> str:
    lines = ["a0: &a0 [1, 2]"] + [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 40)]
    return "\n".join(lines)


def merged() -> str:
    lines = ["a0: &a0 {x: 1}"] + [f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}" for n in range(1, 40)]
    return "\n".join(lines) + "\n<<: *a39\n"


def link(root: Path) -> None:
    (root.parent / "outside.json").write_text("{}")
    (root / "configs/more.json").symlink_to(root.parent / "outside.json")


def logging_conf(kind: str, arguments: str):
    return lambda root: (root / "configs/logging.conf").write_text(LOGGING.format(kind=kind, arguments=arguments))


def write(name: str, text: str):
    return lambda root: ((root / name).parent.mkdir(exist_ok=True), (root / name).write_text(text, encoding="utf-8"))


def expression(text: str):
    return lambda root: config(root, bad=text)


def reached(text: str, **entries: object):
    return lambda root: config(root, **entries, run=[f"${text}"])


BAD = {
    # targets
    "os.system": lambda r: calls(r, "os.system", command="true"),
    "subprocess": lambda r: calls(r, "subprocess.Popen", args="true"),
    "builtin without dots": lambda r: calls(r, "exec"),
    "builtins": lambda r: calls(r, "builtins.eval"),
    "a module through MONAI": lambda r: calls(r, "monai.data.utils.os.system", command="true"),
    "a module through torch": lambda r: calls(r, "torch.nn.modules.module.torch.hub.load"),
    "torch.hub": lambda r: calls(r, "torch.hub.load", repo_or_dir="a/b"),
    "MONAI's download": lambda r: calls(r, "monai.apps.download_and_extract", url="https://x.org/a"),
    "MONAI's bundles": lambda r: calls(r, "monai.bundle.run"),
    "MONAI's import by name": lambda r: calls(r, "monai.utils.optional_import", module="os", name="system"),
    "import by name without dots": lambda r: calls(r, "optional_import", module="os", name="system"),
    "code of the bundle": lambda r: calls(r, "scripts.net.Net"),
    "target by reference": lambda r: config(r, name="os.getcwd", bad={"_target_": "@name"}),
    "target by macro": lambda r: config(r, name="torch.nn.ReLU", bad={"_target_": "%name"}),
    "target by expression": lambda r: calls(r, "$'os' + '.system'"),
    "target by an attribute": lambda r: config(
        r, up={"_target_": "torch.nn.Upsample", "mode": "os.system"}, bad={"_target_": "$@up.mode"}
    ),
    "target in a nested id": lambda r: config(r, **{"network_def#_target_": "os.system"}),
    "target merged in": lambda r: config(r, **{"+network_def": {"_target_": "os.system"}}),
    "target that is disabled": lambda r: calls(r, "os.system", _disabled_=True),
    "debug mode": lambda r: calls(r, "monai.transforms.Compose", _mode_="debug"),
    "mode by reference": lambda r: config(r, m="debug", bad={"_target_": "monai.transforms.Compose", "_mode_": "@m"}),
    "requires": lambda r: calls(r, "monai.transforms.Compose", _requires_="$os.abort()"),
    "look-alike letters": lambda r: calls(r, "mon\u0430i.transforms.Compose"),
    "reader that is imported": lambda r: calls(r, "monai.transforms.LoadImage", reader="subprocess.Popen", args="true"),
    "reader by expression": lambda r: calls(r, "LoadImaged", keys="a", reader="$'subprocess' + '.Popen'"),
    "writer of the bundle": lambda r: calls(r, "monai.transforms.SaveImage", writer="scripts.writer.Writer"),
    "merger that is imported": lambda r: calls(r, "monai.inferers.PatchInferer", merger_cls="shutil.rmtree"),
    "pickles allowed": lambda r: calls(r, "monai.data.NumpyReader", allow_pickle=True),
    "weights fetched": lambda r: calls(r, "monai.networks.nets.resnet50", pretrained=True),
    # expressions
    "import by a built-in": expression("$__import__('os').system('true')"),
    "import": expression("$import subprocess"),
    "import from": expression("$from os import system"),
    "import under a good name": expression("$import shutil as monai"),
    "import of another's module": expression("$from torch.nn.modules.module import torch"),
    "import of all": expression("$from os.path import *"),
    "two statements": expression("$import os; os.abort()"),
    "eval": expression("$eval('1')"),
    "compile": expression("$compile('1', '', 'eval')"),
    "open": expression("$open('/etc/passwd').read()"),
    "system handed on": expression("$list(map(os.system, ['true']))"),
    "module handed on": expression("$[os][0].system('true')"),
    "getattr": expression("$getattr(os, 'sys' + 'tem')('true')"),
    "getattr of a constant": expression("$getattr(os, 'system')('true')"),
    "setattr": expression("$setattr(torch, 'load', print)"),
    "dunder chain": expression("$().__class__.__base__.__subclasses__()"),
    "globals of a function": expression("$@network.forward.__globals__['os'].abort()"),
    "frame of a generator": expression("$(1 for _ in [1]).gi_frame.f_builtins['eval']('1')"),
    "lambda": expression("$(lambda f=os.system: f('true'))()"),
    "comprehension": expression("$[os for os in [os.system]]"),
    "walrus": expression("$(o := os).abort()"),
    "full-width letters": expression("$\uff45val('1')"),
    "format with attributes": expression("$'{0.__class__}'.format_map({})"),
    "torch.load": expression("$torch.load('models/model.pt')"),
    "torch.load handed on": expression("$list(map(torch.load, ['models/model.pt']))"),
    "weights_only false": expression("$torch.load('models/model.pt', weights_only=False)"),
    "pickle": expression("$import pickle"),
    "environment handed on": expression("$dict.update(os.environ, a='1')"),
    "reader in an expression": expression("$monai.transforms.LoadImage('sub' + 'process.Popen')"),
    "reader handed on": expression("$list(map(monai.transforms.LoadImage, ['sub' + 'process.Popen']))"),
    "evaluating table": expression("$@dataset.eval('1 + 1')"),
    "writing": expression("$pathlib.Path('x').write_text('y')"),
    "reference that is code": lambda r: config(r, **{"or": "", "bad": "$'@or' + os.system('true') + '@or'"}),
    "code in a key": lambda r: config(r, **{"a'+os.abort()+'": {"b": "$@::c", "c": 1}}),
    "MONAI's own dictionary": expression("$__local_refs['network']"),
    "no Python": expression("$os.system('true'"),
    "long expression": expression("$" + "(" * 9000 + "1" + ")" * 9000),
    "address": expression("$torch.distributed.init_process_group('gloo', init_method='tcp://10.0.0.1:1')"),
    "in metadata": lambda r: (r / "configs/metadata.json").write_text(json.dumps({**META, "a": "$import subprocess"})),
    # modules and functions behind references
    **{
        f"reached by reference, {text}": reached(text, **entries)
        for text, entries in {
            "@m.utils.run_cmd(['touch', 'x'])": {"m": "$import monai"},
            "@m.remove('x')": {"m": "$import os"},
            "@m.kill(1, 9)": {"m": "$import os"},
            "@m.symlink('a', 'b')": {"m": "$import os"},
            "@m.truncate('x', 0)": {"m": "$import os"},
            "@m.write(1, b'x')": {"m": "$import os"},
            "@m.environ.update(a='1')": {"m": "$import os"},
            "@mods::1.remove('x')": {"mods": ["$import glob", "$import os"]},
            "@mods#1.remove('y')": {"mods": ["$import glob", "$import os"]},
            "@imports::1.remove('z')": {},
            "@m.bundle.run()": {"m": "$import monai"},
            "@m.bundle.download('a')": {"m": "$import monai"},
            "@m.distributed.run.main([])": {"m": "$import torch"},
            "@m.package.PackageImporter('a')": {"m": "$import torch"},
            "@m.utils.collect_env.run_and_read_all(0, 'true')": {"m": "$import torch"},
            "@m.remove('by another name')": {"m": "$import os as system_things"},
            "@m.save('a', 'b')": {"m": "$from torch import hub"},
            "@m('model.pt')": {"m": "$from torch import load"},
            "getattr(@m, 'remove')('x')": {"m": "$import os"},
            "@n.remove('x')": {"m": "$import os", "n": "@m"},
            "@n.remove('y')": {"m": "$import os", "n": "$@m"},
            "@n.remove('z')": {"m": "$import os", "n": "%m"},
            "@n::m.remove('x')": {"h": {"m": "$import os"}, "n": "%h"},
            "@a[0][0].remove('x')": {"a": [["$import os"]]},
            "@a::0::0.remove('x')": {"a": [["$import os"]]},
            "@n['m'].remove('x')": {"n": {"m": "$import os"}},
            "[x.remove('a') for x in [@m]]": {"m": "$import os"},
            "(lambda x: x.remove('a'))(@m)": {"m": "$import os"},
            "(lambda x=@m: x.remove('a'))()": {"m": "$import os"},
            "f'{@m.remove(chr(97))}'": {"m": "$import os"},
            "@m.path.join.__globals__['os'].remove('x')": {"m": "$import os"},
            "@n.torch.distributed.run.main([])": {"n": "$torch.nn.functional"},
            "[torch.nn.functional][0].torch.save(1, 'x')": {},
            "pathlib.Path('a').replace('b')": {"p": "$import pathlib"},
            "@n('x')": {"n": {"_target_": "torch.load", "_mode_": "callable"}},
            "@nowhere.remove('x')": {},
            "os.environ.update(a='1')": {},
            "pathlib.Path.replace('a', 'b')": {"p": "$import pathlib"},
            "@n()": {"n": {"_target_": "functools.partial", "func": "$from torch import load"}},
        }.items()
    },
    "long chain of references": lambda r: config(
        r, **{f"a{n}": f"@a{n + 1}" for n in range(90)}, a90="$import os", run=["$@a0.remove('x')"]
    ),
    "more references than can be judged": lambda r: config(r, **{f"a{n}": f"%a{n + 1}::x" for n in range(3000)}),
    # other files
    "macro to a file outside": lambda r: config(r, bad="%../../other.json#a"),
    "macro to an absolute file": lambda r: config(r, bad="%/tmp/other.json"),
    "system path": lambda r: config(r, output_dir="/etc/cron.d"),
    "private path": lambda r: config(r, dataset_dir="~/.ssh/keys"),
    "code in docs": write("docs/more.json", '{"a": "$import subprocess"}'),
    "YAML that makes objects": write("configs/train.yaml", "a: !!python/object/apply:os.system ['true']"),
    "YAML bomb": write("configs/train.yaml", bomb()),
    "YAML merges": write("configs/train.yaml", merged()),
    "deep nesting": write("configs/train.json", nested(100_000)),
    "nesting that Python reads": write("configs/train.json", nested(400)),
    "key twice": write("configs/train.json", '{"a": {"_target_": "os.system", "_target_": "torch.nn.ReLU"}}'),
    "key twice in YAML": write("configs/train.yaml", "a: 1\na: 2"),
    "huge file": write("configs/train.json", '{"a": "' + "x" * (17 * 2**20) + '"}'),
    "no UTF-8": lambda r: (r / "configs/train.json").write_bytes(b'{"a": "\xff"}'),
    "Python present": write("scripts/net.py", "class Net: ..."),
    "Python that takes a place": write("ignite.py", "print('ran')"),
    "start-up file": write("sitecustomize.py", ""),
    "logging class": logging_conf("__import__('os').abort", "()"),
    "logging arguments": logging_conf("StreamHandler", "(__import__('os').abort(),)"),
    "logging to a server": logging_conf("handlers.HTTPHandler", "('x.org', '/')"),
    "logging outside": logging_conf("FileHandler", "('/etc/motd', 'a')"),
    "link out": link,
    "broken link": lambda r: (r / "configs/more.json").symlink_to("nowhere.json"),
    "pickle of code": lambda r: save_pickle(r / "models/other.pt", 2),
    "pickle of protocol 0": lambda r: save_pickle(r / "models/other.pkl", 0),
    "pickle of protocol 4": lambda r: save_pickle(r / "models/other.bin", 4),
    "pickle behind others": lambda r: old_torch(r / "models/other.pt"),
    "checkpoint of code": lambda r: torch.save({"a": _Calls(eval, "1")}, r / "models/other.pt"),
    "TorchScript": lambda r: script(r / "models/model.ts"),
    "TorchScript by another name": lambda r: script(r / "models/weights.pt"),
    "machine code": lambda r: (r / "models/lib.bin").write_bytes(b"\x7fELF" + bytes(60)),
    "archive inside": lambda r: zipfile.ZipFile(r / "models/more.pt", "w").writestr("a.txt", "x"),
    "weights of another checksum": lambda r: (r / "models/model.pt.sha256").write_text("0" * 64),
    "weights changed": lambda r: (r / "models/model.pt").write_bytes((r / "models/model.pt").read_bytes() + b"x"),
    "large file outside": write("large_files.yml", "large_files:\n- {path: ../x, url: https://a.org, hash_val: ''}"),
    "large file without checksum": write("large_files.yml", "large_files:\n- {path: x.pt, url: https://a.org/x}"),
}


EVENTS = ("os.system", "subprocess.Popen", "os.exec", "socket.connect", "pickle.find_class")


@pytest.fixture(scope="session")
def watched() -> dict[str, list[str]]:
    """What Python starts, connects to or unpickles while somebody looks: a list under ``"seen"``."""
    state: dict[str, list[str]] = {}

    def watch(event: str, arguments: tuple, events: tuple[str, ...] = EVENTS) -> None:
        # The names are an argument, for a hook outlives the names of its module when Python ends.
        if event in events and "seen" in state:
            state["seen"].append(event)

    full_names("LoadImage")  # importing MONAI starts programs of its own
    sys.addaudithook(watch)
    return state


@pytest.fixture
def nothing_runs(watched: dict[str, list[str]]) -> Iterator[list[str]]:
    """The events of this test alone."""
    watched["seen"] = []
    yield watched["seen"]
    del watched["seen"]


# One or two of each way in; the others run with --full.
QUICK = """os.system|builtin without dots|a module through MONAI|code of the bundle|target by reference
|target in a nested id|debug mode|reader that is imported|weights fetched|import by a built-in
|two statements|module handed on|getattr|dunder chain|comprehension|torch.load|full-width letters
|reference that is code|code in a key|in metadata|private path|YAML that makes objects|YAML merges
|nesting that Python reads|Python that takes a place|logging class|link out|pickle of code
|pickle behind others|TorchScript|weights changed|large file outside
|reached by reference, @m.utils.run_cmd(['touch', 'x'])|reached by reference, @imports::1.remove('z')"""
CASES = [one if one in QUICK.replace("\n", "").split("|") else pytest.param(one, marks=pytest.mark.full) for one in BAD]


@pytest.mark.parametrize("case", CASES)
def test_a_bad_bundle_is_refused_and_nothing_of_it_runs(zoo, case, nothing_runs, record_property):
    BAD[case](zoo)
    nothing_runs.clear()  # making the bundle may start things, checking it may not
    modules = set(sys.modules)
    result = CliRunner().invoke(app, ["check-bundle", str(zoo)], env={"COLUMNS": "200"})
    known = isinstance(result.exception, SystemExit | InputError | None)
    caught = known and result.exit_code == 1
    record_property("fault", ["bundle", case, "caught" if caught else "silent" if known else "crashed"])
    assert caught, result.output
    assert "Refused" in result.output
    assert nothing_runs == []
    assert not [name for name in set(sys.modules) - modules if name.partition(".")[0] in ("scripts", "sitecustomize")]


def bad_zip(root: Path, name: str, content: bytes = b"x", mode: int = 0) -> Path:
    path = root.with_suffix(".zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in root.rglob("*"):
            if file.is_file():
                archive.write(file, file.relative_to(root.parent))
        info = zipfile.ZipInfo(name)
        info.external_attr = mode << 16
        info.compress_type = zipfile.ZIP_DEFLATED
        archive.writestr(info, content)
    return path


@pytest.mark.parametrize(
    ("case", "name", "content", "mode"),
    [
        ("zip with ..", "zoo_bundle/../../evil.txt", b"x", 0),
        ("zip with an absolute member", "/tmp/evil.txt", b"x", 0),
        ("zip with a link", "zoo_bundle/link", b"/etc/passwd", 0o120777),
        ("zip bomb", "zoo_bundle/models/big.txt", bytes(30 * 2**20), 0),
        ("zip with a member twice", "zoo_bundle/configs/INFERENCE.json", b"{}", 0),
    ],
)
def test_a_bad_zip_is_refused(zoo, case, name, content, mode, record_property):
    before = set(zoo.parent.rglob("*"))
    report = check_bundle(bad_zip(zoo, name, content, mode))
    record_property("fault", ["bundle", case, "caught" if report.refused else "silent"])
    assert [one.kind for one in report.refused] == ["link"]
    assert set(zoo.parent.rglob("*")) - before == {zoo.with_suffix(".zip")}


@pytest.mark.parametrize("case", ["no folder", "no configs", "text instead of a zip", "torn zip"])
def test_what_is_no_bundle_says_so(tmp_path, zoo, case, record_property):
    path = tmp_path / "thing.zip"
    if case == "no configs":
        path = tmp_path / "empty"
        path.mkdir()
    elif case == "text instead of a zip":
        path.write_text("hello")
    elif case == "torn zip":
        path.write_bytes(bad_zip(zoo, "zoo_bundle/a").read_bytes()[:-40])
    with pytest.raises(InputError, match=f"{path.name}: ") as caught:
        check_bundle(path)
    record_property("fault", ["bundle", case, "caught"])
    assert caught.value.code.startswith("bundle.")


@pytest.mark.parametrize("name", OURS)
def test_our_bundles_pass(name, record_property):
    report = check_bundle(Path(monai_ext.bundle_path(name)))
    record_property("fault", ["good bundle", name, "silent" if report.refused else "passed"])
    assert report.refused == []
    kinds = report.counts()
    assert kinds["target"][0] > 30
    assert kinds["expression"][0] > 40
    assert ("network" in kinds) == (name == "aa_clip_lesion_localization")  # CLIP's weights, where a tag names them


@pytest.mark.parametrize("form", ["folder", "zip", "short names", "yaml"])
def test_a_bundle_like_those_of_the_zoo_passes(zoo, form, record_property):
    path = bad_zip(zoo, "zoo_bundle/docs/more.md") if form == "zip" else zoo
    if form == "short names":
        (zoo / "configs/inference.json").write_text(
            json.dumps(ZOO).replace("monai.transforms.", "").replace("monai.networks.nets.", "")
        )
        assert '"_target_": "LoadImaged"' in (zoo / "configs/inference.json").read_text()
        path.joinpath("configs/train.json").write_text(json.dumps({"x": {"_target_": "UNet"}}))
    if form == "yaml":
        import yaml

        (zoo / "configs/inference.json").unlink()
        (zoo / "configs/inference.yaml").write_text(yaml.safe_dump(ZOO))
    report = check_bundle(path) if form != "short names" else check_bundle(path, ["monai"])
    record_property("fault", ["good bundle", f"zoo, {form}", "silent" if report.refused else "passed"])
    assert report.refused == []
    found = {(one.kind, one.what) for one in report.findings}
    assert {
        ("import", "glob"),
        ("read", "/workspace/data/Task09_Spleen"),
        ("network", "https://example.org/model.pt"),
    } <= found
    assert ("checksum", "models/model.pt") in found


def test_a_path_as_text_is_taken(zoo):
    assert check_bundle(str(zoo)) == check_bundle(zoo)


def test_references_to_modules_may_use_what_names_may(zoo):
    config(zoo, m="$import os", f="$from torch import zeros", n="$@m.path.join('a', 'b')", x="$@f(3).numpy().shape")
    assert check_bundle(zoo).refused == []


def test_what_the_user_allows_passes(zoo):
    write("scripts/net.py", "class Net: ...")(zoo)
    config(zoo, imports=[*ZOO["imports"], "$import scripts"], bad={"_target_": "scripts.net.Net"}, worse="$os.abort()")
    assert {one.what for one in check_bundle(zoo).refused} >= {"scripts", "scripts.net.Net", "os.abort"}
    assert {one.what for one in check_bundle(zoo, ["scripts"]).refused} == {"os.abort"}
    script(zoo / "models/model.ts")
    checksum = hashlib.sha256((zoo / "models/model.ts").read_bytes()).hexdigest()
    assert checksum in {one.what for one in check_bundle(zoo).refused}
    assert checksum not in {one.what for one in check_bundle(zoo, [checksum]).refused}


def test_json_tells_everything_and_control_characters_stay_out(zoo):
    config(zoo, bad="$os.system('\x1b[2J')")
    result = CliRunner().invoke(app, ["check-bundle", str(zoo), "--json"])
    told = json.loads(result.output)
    assert told["refused"] == 1
    assert {
        "file": "configs/inference.json",
        "place": "bad",
        "kind": "expression",
        "what": "os.system",
    }.items() <= next(one for one in told["findings"] if one["refused"]).items()
    assert "\x1b" not in CliRunner().invoke(app, ["check-bundle", str(zoo), "--all"]).output
    assert str(zoo.parent) not in result.output


@pytest.mark.parametrize(
    "text", ["$@a + 1", "$'x@a#b' + @c::d", "$@a@b", "$[@ab, @a, @abc]", "$f(@a#0, '@')", "$x@y.z"]
)
def test_references_are_replaced_as_monai_does(text):
    from monai.bundle.reference_resolver import ReferenceResolver

    refs = dict.fromkeys(("a", "b", "ab", "abc", "a::b", "c::d", "a::0", "", "y"), 0)
    assert as_evaluated(text, "here") == ReferenceResolver.update_refs_pattern(text, refs)[1:]


@pytest.mark.parametrize("text", ["$@::b + @::::c", "$@##c", "$[@#b, @##c]"])
def test_relative_references_are_replaced_as_monai_does(text):
    from monai.bundle import ConfigParser
    from monai.bundle.reference_resolver import ReferenceResolver

    absolute = ConfigParser.resolve_relative_ids("x::y::z", text)
    refs = {"x::y::b": 0, "x::c": 0}
    assert as_evaluated(text, "x::y::z") == ReferenceResolver.update_refs_pattern(absolute, refs)[1:]


@pytest.mark.full
def test_no_listed_name_leads_to_a_module_or_function_that_runs_or_fetches():
    import monai.transforms  # noqa: F401 - loads all rooms

    from monai_ext.audit.names import why_not_name

    bad = (
        "os",
        "posix",
        "subprocess",
        "shutil",
        "importlib",
        "runpy",
        "pickle",
        "_pickle",
        "socket",
        "ctypes",
        "builtins",
    )
    bad_modules = (*bad, "sys", "urllib.request", "requests", "torch.hub", "torch.jit", "ignite.distributed", "torch")
    harmless = {"UnpicklingError", "PickleError", "PathLike", "fspath"}
    tried, leaks = 0, []
    for name, module in sorted(sys.modules.items()):
        if name.partition(".")[0] not in ("monai", "torch", "ignite", "einops", "monai_ext") or not isinstance(
            module, types.ModuleType
        ):
            continue
        for attribute in dir(module):
            if why_not_name(f"{name}.{attribute}"):
                continue
            tried += 1
            value = vars(module).get(attribute)
            home = (
                getattr(value, "__module__", None)
                if isinstance(value, type | types.FunctionType | types.BuiltinFunctionType)
                else None
            )
            if (isinstance(value, types.ModuleType) and value.__name__ in bad_modules) or (
                home in bad and attribute not in harmless and not (home == "builtins" and isinstance(value, type))
            ):
                leaks.append(f"{name}.{attribute}")
    assert tried > 5000
    assert leaks == []
