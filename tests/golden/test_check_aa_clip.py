"""The checker passes the goldens of AA-CLIP, and nothing else."""

import copy
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from monai_ext.networks import AAClip, PromptTable, load_clip

sys.path.insert(0, str(Path(__file__).parent))

import check
from formats import aa_clip_full, aa_clip_small
from formats.comparison import Comparison, Line

FULL = "full_"  # what only --full runs: minutes, and 7 GB


@pytest.fixture(scope="module")
def goldens(shared_goldens: Path) -> Path:
    return shared_goldens / "aa_clip"


@pytest.fixture(scope="module")
def lines(goldens: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Line]]:
    """The verdicts on every file but the full-size ones."""
    folder = tmp_path_factory.mktemp("goldens")
    for path in goldens.iterdir():
        if not path.name.startswith(FULL):
            shutil.copy(path, folder)
    return {name: check.check_file(path, name) for path, name in check.find_files([folder]) if name != check.IGNORED}


def failed(found: list[Line]) -> set[str | None]:
    return {line.tensor for line in found if not line.ok}


def read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118


@pytest.fixture
def changed(goldens: Path, tmp_path: Path) -> Callable[..., list[Line]]:
    """Check a copy of a file with some tensors, metadata or JSON changed, beside copies of others."""

    def run(name: str, change: Callable[[dict[str, Any]], None], beside: tuple[str, ...] = ()) -> list[Line]:
        for other in beside:
            shutil.copy(goldens / other, tmp_path)
        if name.endswith(".json"):
            content = json.loads((goldens / name).read_text())
            change(content)
            (tmp_path / name).write_text(json.dumps(content))
        else:
            tensors, metadata = read(goldens / name)
            config = json.loads(metadata.get("config", "{}"))
            content = {**tensors, "config": config}
            change(content)
            config = content.pop("config")
            save_file(content, tmp_path / name, {"config": json.dumps(config)} if config else None)
        return check.check_file(tmp_path / name, name)

    return run


# The goldens themselves


def test_every_golden_passes(lines):
    assert {(name, tensor) for name, found in lines.items() for tensor in failed(found)} == set()
    assert len(lines) == 8


def test_every_stored_value_has_its_line(goldens, lines):
    words = {"config.seed", "small_a.config.seed", "small_b.config.seed", "order", "sklearn"}  # for readers alone
    for name, found in lines.items():
        stored = {entry for entry in check.read(goldens / name).entries() if entry not in words}
        assert stored == {line.tensor for line in found}, name
    tensors, _ = read(goldens / "small_a.safetensors")
    assert set(tensors) <= {line.tensor for line in lines["small_a.safetensors"]}
    assert len(lines["small_a.safetensors"]) > 500


@pytest.mark.parametrize(
    ("tensor", "tol"),
    [
        ("out.s1.batch.map_train.12", 2e-4),
        ("out.s2.map_test.Industrial.3", 2e-4),
        ("out.s2.anomaly_map.Medical", 2e-4),
        ("out.s2.map_max.Medical", 2e-4),
        ("out.s2.det", 1e-4),
        ("out.text.pill.anchor", 1e-4),
        ("in.tokens.pill.normal", 0.0),
        ("state.clipmodel.visual.proj", 0.0),
        ("out.s2.traj_final.image_adapter.det_proj.fc.weight", 2 * 0.0005 * 4),
    ],
)
def test_tolerances_are_those_of_the_readme(lines, tensor, tol):
    line = next(line for line in lines["small_a.safetensors"] if line.tensor == tensor)
    assert line.tol == pytest.approx(tol, rel=1e-12)


def test_large_values_have_a_relative_tolerance(goldens, lines):
    tensors, _ = read(goldens / "small_a.safetensors")
    by_name = {line.tensor: line for line in lines["small_a.safetensors"]}
    tokens, losses = "out.clip.tokens.12", "out.s2.traj_losses"
    assert tensors[tokens].abs().max() > 1
    assert by_name[tokens].tol == pytest.approx(1e-4 * float(tensors[tokens].abs().max()), rel=1e-6)
    assert by_name[losses].tol == pytest.approx(1e-4 * float(tensors[losses].min()), rel=1e-6)  # of each, the smallest


def test_trajectories_report_the_share_of_entries_beyond(lines):
    trained = [line for line in lines["small_b.safetensors"] if ".traj_final." in line.tensor]
    assert len(trained) == 3 * 4 + 11
    for line in trained:
        assert json.loads(str(line))["share_beyond_1e-5"] == line.share_beyond < 0.01
    others = [line for line in lines["small_b.safetensors"] if ".traj_final." not in line.tensor]
    assert all(list(json.loads(str(line))) == ["file", "tensor", "max_abs_err", "tol", "ok"] for line in others)


# Changed files


def test_moved_values_fail_their_lines_alone(goldens, changed):
    moved = {
        "out.clip.tokens.3": 1e-3,
        "out.clip.image_features": 1e-3,
        "out.text.bottle.adapted.normal": 1e-3,
        "out.text.object.clip.abnormal": 4e-4,
        "out.text.pill.anchor": 2e-4,
        "out.s1.cls_token": 2e-4,
        "out.s1.batch.tokens.9": 2e-3,
        "out.s1.token.patch.6": 2e-4,
        "out.s1.batch.map_train.12": 4e-4,
        "out.s1.token.sum.loss": 1e-2,
        "out.s1.orth": 2e-4,
        "out.s1.batch.focal.3": 3e-3,
        "out.s1.batch.last.grad.text_adapter.3.fc.0.weight": 2e-4,
        "out.s2.seg.9": 2e-4,
        "out.s2.logits": 2e-4,
        "out.s2.ce": 2e-4,
        "out.s2.map_test.Industrial.6": 4e-4,
        "out.s2.anomaly_map.Medical": 4e-4,
        "out.s2.map_max.Industrial": 4e-4,
        "out.s2.det_score": 2e-4,
        "out.s2.traj_losses": 1e-2,
        "out.qg.s2.det": 2e-4,
        "out.qg.text.bottle.anchor": 2e-4,
        "out.s2.loss": float("nan"),
    }

    def change(content: dict[str, Any]) -> None:
        for name, by in moved.items():
            content[name] = content[name].clone()
            content[name].view(-1)[-1] += by
        # Every hundredth entry is one too many for a trajectory.
        trained = "out.s1.token.last.traj_final.text_adapter.1.fc.0.weight"
        content[trained] = content[trained].clone()
        content[trained].view(-1)[::90] += 3e-5
        content["out.attention"] = torch.zeros(3)
        content["config"]["extra"] = 1

    found = changed("small_a.safetensors", change)
    expected = {*moved, "out.s1.token.last.traj_final.text_adapter.1.fc.0.weight", "out.attention", "config.extra"}
    assert failed(found) == expected


def test_dropped_values_fail(changed):
    dropped = {
        "out.clip.tokens.24", "out.text.Brain.anchor_clip", "out.s1.batch.patch.18", "out.s1.token.map_train.24",
        "out.s1.token.sum.traj_losses", "out.s1.batch.last.traj_final.text_adapter.0.fc.0.weight", "out.s1.cls_token",
        "out.s2.det", "out.s2.anomaly_map.Industrial", "out.s2.grad.image_adapter.det_proj.fc.0.weight",
        "out.qg.s2.seg.6", "in.tokens.Brain.abnormal",
    }  # fmt: skip

    def change(content: dict[str, Any]) -> None:
        for name in dropped:
            del content[name]

    assert failed(changed("small_b.safetensors", change)) == dropped


def test_inputs_and_settings_count(changed):
    def change(content: dict[str, Any]) -> None:
        content["in.label"] = 1 - content["in.label"]
        content["in.mask"] = content["in.mask"] * 2
        content["in.tokens.Brain.normal"] = content["in.tokens.Brain.normal"] + 1
        content["config"].update(quick_gelu=True, surgery_until_layer=19, text_norm_weight=0.2, object_prompts=True)

    wrong = failed(changed("small_b.safetensors", change))
    # A mask of 2 is refused by the losses, which ends the run.
    assert {"check", "config.quick_gelu", "config.surgery_until_layer", "config.object_prompts"} <= wrong
    assert {"config.batch_labels", "in.mask", "in.tokens.Brain.normal"} <= wrong


@pytest.mark.parametrize(
    ("file", "change", "wrong"),
    [
        (
            "metrics.json",
            lambda c: c["cases"]["ties"]["Medical"]["unrounded"].update(image_ap=0.83334),
            {"cases.ties.Medical.unrounded.image_ap"},
        ),
        (
            "metrics.json",
            lambda c: c["cases"]["mixed"]["Industrial"]["result"].update({"pixel AUC": 70.46}),
            {"cases.mixed.Industrial.result.pixel AUC"},
        ),
        (
            "metrics.json",
            lambda c: c["cases"]["all_normal"]["Medical"]["result"].update({"pixel AUC": 0.0}),
            {"cases.all_normal.Medical.result.pixel AUC"},
        ),
        (
            "metrics.json",
            lambda c: c["cases"]["constant_pixel"]["Medical"].update(raises="TypeError"),
            {"cases.constant_pixel.Medical.raises"},
        ),
        (
            "metrics.json",
            lambda c: c["cases"]["constant_image"]["Medical"].update(warnings=[]),
            {"cases.constant_image.Medical.warnings"},
        ),
        (
            "metrics.json",
            lambda c: c["cases"]["mixed"]["Medical"]["combined_image_score"].pop(),
            {"cases.mixed.Medical.combined_image_score"},
        ),
        (
            "metrics.json",
            lambda c: c["cases"]["mixed"]["Medical"]["result"].pop("image AP"),
            {"cases.mixed.Medical.result.image AP"},
        ),
        ("prompts.json", lambda c: c["n_prompts"].update(normal=7), {"n_prompts.normal"}),
        (
            "prompts.json",
            lambda c: c["examples"]["MVTec/pill"]["normal"].reverse(),
            {"examples.MVTec/pill.normal"},
        ),
        (
            "prompts.json",
            lambda c: c["examples"]["Brain/Brain"].pop("abnormal"),
            {"examples.Brain/Brain.abnormal"},
        ),
        ("prompts.json", lambda c: c.update(extra=3), {"extra"}),
        (
            "cases.json",
            lambda c: c["small_b"]["metrics_eval_on_case_batch"]["Medical"].update({"image AUC": 99.0}),
            {"small_b.metrics_eval_on_case_batch.Medical.image AUC"},
        ),
    ],
)
def test_json_numbers_and_words_count(changed, file, change, wrong):
    beside = {"metrics.json": ("metrics.safetensors",), "cases.json": ("small_a.safetensors", "small_b.safetensors")}
    assert failed(changed(file, change, beside.get(file, ()))) == wrong


def test_a_moved_prediction_fails_its_case(changed):
    def change(content: dict[str, Any]) -> None:
        content["mixed.pixel_pred"] = content["mixed.pixel_pred"].flip(0)

    wrong = failed(changed("metrics.safetensors", change, ("metrics.json",)))
    assert wrong == {f"mixed.{array}" for array in ("pixel_pred", "pixel_label", "image_pred", "image_label")}


def test_settings_without_their_file_fail(goldens, tmp_path):
    for name in ("cases.json", "metrics.json", "metrics.safetensors"):
        shutil.copy(goldens / name, tmp_path / f"alone_{name}")
        found = check.check_file(tmp_path / f"alone_{name}", name)
        assert found
        assert not all(line.ok for line in found)
        (tmp_path / f"alone_{name}").unlink()


def test_tokens_and_pictures_count(changed):
    def other_token(content: dict[str, Any]) -> None:
        content["VisA/candle/normal"][2, 3] += 1
        content["VisA/nonesuch/normal"] = content["VisA/candle/normal"].clone()

    wrong = failed(changed("prompt_tokens.safetensors", other_token))
    assert wrong == {"VisA/candle/normal", "VisA/nonesuch/normal", "VisA/nonesuch/abnormal"}

    def other_pixel(content: dict[str, Any]) -> None:
        content["pre.image_out"][0, 0, 0] += 1e-3
        content["pre.mask_out"][0, 0, 0] = 1 - content["pre.mask_out"][0, 0, 0]

    assert failed(changed("preprocess.safetensors", other_pixel)) == {"pre.image_out", "pre.mask_out"}


def test_names_of_files_say_nothing(goldens, tmp_path):
    for number, name in enumerate(("metrics.safetensors", "metrics.json", "prompt_tokens.safetensors")):
        shutil.copy(goldens / name, tmp_path / f"{number}.bin")
    for path in tmp_path.iterdir():
        assert failed(check.check_file(path, path.name)) == set()


def test_prompts_beside_a_file_are_used(goldens, changed, tmp_path):
    content = json.loads((goldens / "prompts.json").read_text())
    table = copy.deepcopy({key: content[key] for key in ("states", "templates", "datasets", "special_class")})
    table["datasets"]["VisA"]["classes"]["candle"] = "wax candle"
    (tmp_path / "table.json").write_text(json.dumps(table))
    wrong = failed(changed("prompt_tokens.safetensors", lambda c: None))
    assert wrong == {"VisA/candle/normal", "VisA/candle/abnormal"}


# Other sizes


class Recording(Comparison):
    """Keeps what the checker computes, to write a file of other sizes."""

    def __init__(self, stored: dict[str, Any]) -> None:
        super().__init__("recorded", stored)
        self.computed: dict[str, torch.Tensor] = {}

    def __call__(self, name: str, computed: Any, scale: float = 1.0) -> None:
        if isinstance(computed, torch.Tensor) and name.startswith("out."):
            self.computed[name] = computed.detach().clone().contiguous()

    def trained(self, name: str, computed: torch.Tensor, furthest: float) -> None:
        self(name, computed)


def drawn(config: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Weights, pictures and tokens of a small case, as its file would hold them."""
    torch.manual_seed(config["seed"])
    clip = load_clip({key: config[key] for key in ("embed_dim", "vision_cfg", "text_cfg")}, None)
    told = ("text_adapt_until", "image_adapt_until", "relu", "levels", "vv_blocks")
    adapters = AAClip(clip, **{key: config[key] for key in told}).adapters.state_dict()
    states = {**{f"clipmodel.{name}": value for name, value in clip.model.state_dict().items()}, **adapters}
    tensors = {f"state.{name}": value.half() for name, value in states.items() if "token_embedding" not in name}
    table, names = PromptTable.published(), {*config["batch_classes"], config["test_class"]}
    for name in names | ({"object"} if config["object_prompts"] else set()):
        prompts = table.of_class(name, config["dataset"])
        for state in ("normal", "abnormal"):
            tensors[f"in.tokens.{name}.{state}"] = clip.tokenizer(getattr(prompts, state)).int()
    ids = torch.cat([value.flatten() for key, value in tensors.items() if key.startswith("in.")]).unique()
    size, count = config["vision_cfg"]["image_size"], len(config["batch_classes"])
    return {
        **tensors,
        "token_embedding.row_ids": ids.long(),
        "token_embedding.rows": torch.randn(len(ids), config["text_cfg"]["width"]).half(),
        "in.image": torch.randn(count, 3, size, size).half(),
        "in.mask": (torch.rand(count, 1, size, size) < 0.2).byte(),
        "in.label": torch.tensor(config["batch_labels"]),
    }


def test_other_sizes_are_taken_from_the_file(tmp_path):
    config = {
        "seed": 7, "embed_dim": 20, "levels": [2, 3, 7], "text_adapt_until": 1, "image_adapt_until": 5,
        "text_adapt_weight": 0.3, "image_adapt_weight": 0.05, "relu": True, "text_norm_weight": 0.7,
        "dataset": "VisA", "batch_classes": ["pcb1", "candle"], "batch_labels": [0, 1], "test_class": "cashew",
        "traj_steps": 2, "traj_text_lr": 0.002, "traj_image_lr": 0.0001, "traj_milestones": [1], "object_prompts": True,
        "vision_cfg": {"layers": 7, "width": 36, "head_width": 12, "patch_size": 4, "image_size": 24},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 24, "heads": 3, "layers": 5},
        "surgery_until_layer": 4, "vv_blocks": 3, "quick_gelu": False,
    }  # fmt: skip
    tensors, path = drawn(config), tmp_path / "case"
    for run in ("s1.batch.last", "s1.token.last", "s1.token.sum", "s2"):
        tensors[f"out.{run}.traj_losses"] = torch.zeros(2)
    save_file(tensors, path, {"config": json.dumps(config)})
    recording = Recording(tensors)
    aa_clip_small.check(check.read(path), recording)
    save_file({**tensors, **recording.computed}, path, {"config": json.dumps(config)})
    found = check.check_file(path, "case")
    # All that the runs yield was recorded, more than files hold; what the weights miss is absent from both.
    assert failed(found) == set()
    names = {line.tensor for line in found}
    assert {"out.s1.token.patch.7", "out.s2.traj_final.image_adapter.det_proj.fc.0.weight", "out.qg.s2.det"} <= names
    assert {"out.text.cashew.anchor", "config.vision_cfg.head_width"} <= names


# The full size


def test_full_size_files_are_known(goldens):
    files = [check.read(path) for path in sorted(goldens.glob(f"{FULL}*"))]
    assert [aa_clip_full.recognises(file) for file in files] == [True, True]


def test_the_recipe_makes_the_recorded_weights(goldens):
    """Those that are small enough to be made here."""
    content = json.loads((goldens / "full_vitl14_336.json").read_text())
    for name, checks in content["recipe_checks"].items():
        if len(checks["shape"]) < 4 and max(checks["shape"]) <= 1024:
            made = aa_clip_full._weight(content["config"]["salt"], name, tuple(checks["shape"]))
            assert made.flatten()[:4].tolist() == checks["first4"]
            assert float(made.double().norm()) == pytest.approx(checks["l2_f64"], rel=1e-9)


@pytest.mark.full
def test_the_full_size_passes(goldens):
    """User time 4 minutes on one core, peak memory 7 GB (measured 2026-11-24)."""
    for path in sorted(goldens.glob(f"{FULL}*")):
        found = check.check_file(path, path.name)
        assert failed(found) == set()
        assert len(found) > 100


@pytest.fixture(scope="module", autouse=True)
def _leave_no_path() -> Iterator[None]:
    yield
    sys.path.remove(str(Path(__file__).parent))
