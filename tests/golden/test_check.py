"""The checker passes the goldens, and nothing else: not a changed number, not a changed network."""

import functools
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from einops.layers.torch import Rearrange
from safetensors import safe_open
from safetensors.torch import save_file

from monai_ext.networks import HiEndMAE, normalise_patches, sincos_positions
from monai_ext.networks import hi_end_mae as network_module

sys.path.insert(0, str(Path(__file__).parent))

import check
from formats import decay_groups, mae, positions, segmentation
from formats.comparison import Comparison
from formats.hi_end_mae import authors_state, build
from formats.hi_end_segmenter import build as build_segmenter

Lines = list[dict[str, Any]]


@pytest.fixture(scope="module")
def goldens(shared_goldens: Path) -> Path:
    return shared_goldens / "hi_end_mae"


@pytest.fixture(scope="module")
def run_over_all(goldens: Path) -> tuple[int, Lines]:
    """The exit status and the lines of the command itself, over the whole folder."""
    command = [sys.executable, Path(__file__).with_name("check.py"), goldens]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
def checked(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, Lines]]:
    """Run the checker here; return its exit status and its lines."""

    def run(*places: Path) -> tuple[int, Lines]:
        capsys.readouterr()
        status = check.main([str(place) for place in places])
        return status, [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return run


def failed(lines: Lines) -> set[str]:
    return {line["tensor"] for line in lines if not line["ok"]}


def read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118


@pytest.fixture
def changed(goldens: Path, tmp_path: Path) -> Callable[..., Path]:
    """Write a copy of a tensor file with some tensors and metadata replaced, or removed where ``None``."""

    def write(name: str, tensors: dict[str, Any] | None = None, **metadata: Any) -> Path:
        stored, texts = read(goldens / name)
        stored |= tensors or {}
        texts |= {key: json.dumps(value) for key, value in metadata.items()}
        target = tmp_path / name
        save_file({key: value for key, value in stored.items() if value is not None}, target, texts)
        return target

    return write


def moved(goldens: Path, name: str, tensor: str, by: float) -> torch.Tensor:
    """A stored tensor whose last value lies ``by`` further."""
    values = read(goldens / name)[0][tensor].clone()
    values[(-1,) * values.ndim] += by
    return values


# The goldens themselves


def test_every_golden_passes(run_over_all):
    status, lines = run_over_all
    assert {(line["file"], line["tensor"]) for line in lines if not line["ok"]} == set()
    assert status == 0


def test_every_line_says_the_same_five_things(run_over_all):
    for line in run_over_all[1]:
        assert list(line) == ["file", "tensor", "max_abs_err", "tol", "ok"]
        assert line["max_abs_err"] <= line["tol"]


def test_every_stored_value_has_its_line(goldens, run_over_all):
    found = {(line["file"], line["tensor"]) for line in run_over_all[1]}
    stored = {
        (path.name, name)
        for path in goldens.iterdir()
        if path.name != check.IGNORED
        for name in check.read(path).entries()
    }
    about_other_programs = ("config_of", "checkpoint_container.", "trainer_model_name")
    assert all(any(words in name for words in about_other_programs) for _, name in stored - found)
    assert found <= stored
    # By hand, because entries() decides above what counts as stored.
    tensors, metadata = read(goldens / "mae_p8_m60.safetensors")
    names = set(tensors) | {f"grad_norms.{name}" for name in json.loads(metadata["grad_norms"])}
    names |= {f"config.{name}" for name in json.loads(metadata["config"])} | {"param_order"}
    assert {("mae_p8_m60.safetensors", name) for name in names} <= found
    for name, shape in json.loads(read(goldens / "unetr_p12.safetensors")[1]["stage_shapes"]).items():
        assert shape
        assert ("unetr_p12.safetensors", f"stage_shapes.{name}") in found
    rates = {f"pretrain[{run}].steps.{column}" for run in range(3) for column in ("epoch", "epoch_float", "lr")}
    assert {("lr_schedule.json", name) for name in rates | {"downstream[1].base_lr"}} <= found


@pytest.mark.parametrize(
    ("file", "tensor", "tol"),
    [
        ("mae_p8_m60.safetensors", "patches", 0.0),
        ("mae_p8_m60.safetensors", "encoder.hidden.11", 1e-4),
        ("mae_p8_m60.safetensors", "encoder.out", 3e-5),
        ("mae_p8_m60.safetensors", "recon", 5e-6),
        ("pos_embed.safetensors", "g8x8x8_d528.sum_over_tokens", 2e-6 * 512),
        ("pos_embed.safetensors", "g8x8x8_d528.sum_over_dims", 2e-6 * 528),
        ("lr_schedule.json", "pretrain[2].steps.lr", 1e-12 * 3e-4),
        ("unetr_p12.safetensors", "logits.stride4", 5e-4),
        ("unetr_p12.safetensors", "logits.channel_std", 1e-5),
        ("unetr_p12.safetensors", "argmax_counts", 50),
    ],
)
def test_tolerances_are_those_of_the_readme(run_over_all, file, tensor, tol):
    line = next(line for line in run_over_all[1] if (line["file"], line["tensor"]) == (file, tensor))
    assert line["tol"] == pytest.approx(tol, rel=1e-12)


def test_gradient_tolerance_is_a_share_of_the_largest_value(goldens, run_over_all):
    file, tensor = "mae_p8_m60.safetensors", "grad.mask_token"
    largest = float(read(goldens / file)[0][tensor].abs().max())
    line = next(line for line in run_over_all[1] if (line["file"], line["tensor"]) == (file, tensor))
    assert line["tol"] == pytest.approx(1e-4 * largest, rel=1e-6)


# Changed files


@pytest.mark.parametrize(
    ("tensor", "by"),
    [
        ("patches", 0.001),
        ("encoder.hidden.5", 2e-4),
        ("decoder.kv.6", 2e-4),
        ("decoder.out", 1e-4),
        ("loss", 4e-6),
        ("loss_f64", 4e-6),
        ("recon", 1e-5),
        ("masked", 0.001),
        ("sel_pos_embed", 4e-6),
        ("grad.mask_token", 1e-3),
        ("input.noise", 1.0),
        ("decoder.cross_out.1", float("nan")),
    ],
)
def test_a_moved_value_fails_its_line_alone(goldens, changed, checked, tensor, by):
    name = "mae_p8_m60.safetensors"
    status, lines = checked(changed(name, {tensor: moved(goldens, name, tensor, by)}))
    assert status == 1
    # The stored patches are also folded back and compared with the image.
    assert failed(lines) == ({tensor, "input.image"} if tensor == "patches" else {tensor})


def test_nan_among_the_stored_values_is_never_ok(goldens, changed, checked):
    name, tensor = "mae_p8_m60.safetensors", "grad.mask_token"
    status, lines = checked(changed(name, {tensor: moved(goldens, name, tensor, float("nan"))}))
    assert (status, failed(lines)) == (1, {tensor})
    assert next(line for line in lines if line["tensor"] == tensor)["tol"] is None  # a share of NaN


def test_a_value_inside_the_tolerance_passes(goldens, changed, checked):
    name = "mae_p8_m60.safetensors"
    status, lines = checked(changed(name, {"decoder.out": moved(goldens, name, "decoder.out", 4e-5)}))
    assert (status, failed(lines)) == (0, set())
    assert next(line["max_abs_err"] for line in lines if line["tensor"] == "decoder.out") > 3e-5


def test_metadata_counts(goldens, changed, checked):
    name = "mae_p8_m60.safetensors"
    metadata = {key: json.loads(text) for key, text in read(goldens / name)[1].items() if key != "origin"}
    metadata["grad_norms"]["mask_token"] *= 1.001
    metadata["config"]["visible_patches"] += 1
    metadata["config"]["new"] = 1
    metadata["param_order"].reverse()
    status, lines = checked(changed(name, **metadata))
    assert status == 1
    wrong = {"grad_norms.mask_token", "config.visible_patches", "config.new", "param_order"}
    assert failed(lines) == wrong


def test_a_tensor_nobody_knows_fails(changed, checked):
    status, lines = checked(changed("mae_p8_m60.safetensors", {"encoder.attention": torch.zeros(3)}))
    assert (status, failed(lines)) == (1, {"encoder.attention"})


def test_another_shape_fails(changed, checked):
    status, lines = checked(changed("pos_embed.safetensors", {"g3x3x3_d48.full": torch.zeros(1, 27, 42)}))
    assert (status, failed(lines)) == (1, {"g3x3x3_d48.full"})


def test_a_missing_weight_fails(changed, checked):
    status, lines = checked(changed("mae_p8_m60.safetensors", {"state.encoder.norm.bias": None}))
    assert status == 1
    assert {"check", "encoder.out", "loss"} <= failed(lines)


@pytest.mark.parametrize(
    ("file", "dropped"),
    [
        (
            "mae_p8_m60.safetensors",
            {
                "loss_f64",
                "input.noise",
                "recon",
                "patches",
                "grad.mask_token",
                "encoder.hidden.7",
                "decoder.cross_out.2",
            },
        ),
        ("pos_embed.safetensors", {"g4x6x8_d96.full", "g8x8x8_d528.sum_over_dims"}),
    ],
)
def test_a_dropped_value_fails(changed, checked, file, dropped):
    status, lines = checked(changed(file, dict.fromkeys(dropped)))
    assert (status, failed(lines)) == (1, dropped)


def test_a_dropped_number_fails(goldens, changed, checked):
    name = "mae_p8_m60.safetensors"
    norms = json.loads(read(goldens / name)[1]["grad_norms"])
    del norms["mask_token"]
    assert failed(checked(changed(name, grad_norms=norms))[1]) == {"grad_norms.mask_token"}


def test_a_renamed_tensor_fails_under_both_names(goldens, changed, checked):
    name = "mae_p8_m60.safetensors"
    renamed = {"encoder.hidden.7": None, "encoder.hidden.12": read(goldens / name)[0]["encoder.hidden.7"]}
    assert failed(checked(changed(name, renamed))[1]) == set(renamed)


@pytest.mark.parametrize(
    ("file", "change", "wrong"),
    [
        (
            "lr_schedule.json",
            lambda c: c["pretrain"][0]["steps"][50].update(lr=5e-5),
            {"pretrain[0].steps.lr"},
        ),
        (
            "lr_schedule.json",
            lambda c: c["downstream"][1].update(eta_min=1e-5),
            {"downstream[1].lr_during_epoch"},
        ),
        ("lr_schedule.json", lambda c: c.update(extra=[1, 2]), {"extra"}),
        (
            "weight_decay_groups.json",
            lambda c: c["groups"][0]["names"].append(c["groups"][1]["names"].pop()),
            {"groups[0].names", "groups[1].names"},
        ),
        (
            "weight_decay_groups.json",
            lambda c: c["groups"][1].update(weight_decay_seen_by_optimizer=0.0),
            {"groups[1].weight_decay_seen_by_optimizer"},
        ),
        ("weight_decay_groups.json", lambda c: c["optimizer"].update(eps=1e-7), {"optimizer.eps"}),
        (
            "released_checkpoint_keys.json",
            lambda c: c["models"]["vit_base_p16"]["parameter_counts"].update(encoder=1),
            {"models.vit_base_p16.parameter_counts.encoder"},
        ),
        (
            "released_checkpoint_keys.json",
            lambda c: c["models"]["vit_base_p16"]["keys"].pop("module.mask_token"),
            {"models.vit_base_p16.keys.module.mask_token"},
        ),
        (
            "pretrain_to_downstream_keys.json",
            lambda c: c["mapped"][1].update(downstream_shape=[47]),
            {"mapped[1].downstream_shape"},
        ),
        (
            "pretrain_to_downstream_keys.json",
            lambda c: c["mapped"].pop(),
            {"mapped.vit.norm.bias"},
        ),
        ("pretrain_to_downstream_keys.json", lambda c: c.pop("unexpected_keys"), {"unexpected_keys"}),
        ("lr_schedule.json", lambda c: c["downstream"][0]["lr_during_epoch"].pop(), {"downstream[0].lr_during_epoch"}),
        ("lr_schedule.json", lambda c: c["pretrain"][0].update(base_lr=2e-4), {"pretrain[0].steps.lr"}),
        ("weight_decay_groups.json", lambda c: c["groups"][0].pop("num_tensors"), {"groups[0].num_tensors"}),
        (
            "pretrain_to_downstream_keys.json",
            lambda c: c["pretrain_keys_not_used"].pop(),
            {"pretrain_keys_not_used"},
        ),
    ],
)
def test_json_numbers_and_names_count(goldens, tmp_path, checked, file, change, wrong):
    shutil.copy(goldens / "mae_p8_m60.safetensors", tmp_path)
    content = json.loads((goldens / file).read_text())
    change(content)
    target = tmp_path / file
    target.write_text(json.dumps(content))
    status, lines = checked(target)
    assert (status, failed(lines)) == (1, wrong)


# Files by their content


def test_names_of_files_say_nothing(goldens, tmp_path, checked):
    for number, name in enumerate(("pos_embed.safetensors", "mae_p8_m60.safetensors", "lr_schedule.json")):
        shutil.copy(goldens / name, tmp_path / f"{number}.bin")
    shutil.copy(goldens / "weight_decay_groups.json", tmp_path / "groups")  # names a sibling that is 1.bin now
    status, lines = checked(tmp_path)
    assert (status, failed(lines)) == (0, set())
    assert {line["file"] for line in lines} == {"0.bin", "1.bin", "2.bin", "groups"}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello",
        b"[1, 2]",
        b'{"rates": [1]}',
        b'{"mode":{"a": 1}}',  # the ninth letter is that of a safetensors file
        b'{"pretrain": 5}',
        b"[" * 10_000,
        b'\x08\0\0\0\0\0\0\0{"a": 1}',
        b"\x89PNG\r\n\x1a\n",
    ],
)
def test_an_unknown_file_fails_and_the_others_go_on(goldens, tmp_path, checked, content):
    (tmp_path / "a.json").write_bytes(content)
    shutil.copy(goldens / "lr_schedule.json", tmp_path / "b.json")
    (tmp_path / "README.md").write_text("not a golden")
    status, lines = checked(tmp_path)
    assert status == 1
    assert [line for line in lines if line["file"] == "a.json"] == [
        {"file": "a.json", "tensor": None, "max_abs_err": None, "tol": None, "ok": False}
    ]
    assert all(line["ok"] for line in lines if line["file"] == "b.json")


def test_a_torn_file_fails(goldens, tmp_path, checked):
    torn = tmp_path / "torn.safetensors"
    torn.write_bytes((goldens / "pos_embed.safetensors").read_bytes()[:-100])
    assert checked(torn)[0] == 1
    assert checked(tmp_path / "absent.json")[0] == 1


def test_nothing_to_compare_is_no_success(tmp_path, checked):
    (tmp_path / "README.md").write_text("alone")
    assert checked(tmp_path) == (2, [])


class Recording(Comparison):
    """Keeps what the checker computes, to write a file of other sizes."""

    METADATA = ("param_order", "grad_norms", "stage_shapes")

    def __init__(self, stored: Mapping[str, Any]) -> None:
        super().__init__("recorded", stored)
        self.computed: dict[str, torch.Tensor] = {}
        self.metadata: dict[str, Any] = {}

    def __call__(self, name: str, computed: Any, scale: float = 1.0) -> None:
        if isinstance(computed, torch.Tensor):
            self.computed[name] = computed.detach().clone().contiguous()
        else:
            kind, _, entry = name.partition(".")
            if kind in self.METADATA and entry:
                self.metadata.setdefault(kind, {})[entry] = computed
            elif kind in self.METADATA:
                self.metadata[kind] = computed

    def texts(self, **config: Any) -> dict[str, str]:
        """Return the metadata of a file with these settings."""
        return {key: json.dumps(value) for key, value in {**self.metadata, "config": config}.items()}


@pytest.mark.parametrize(
    ("config", "taps"),
    [
        (
            {"img_size": [4, 15, 14], "patch_size": [2, 3, 7], "in_chans": 3, "embed_dim": 12, "depth": 5,
             "num_heads": 2, "decoder_embed_dim": 18, "decoder_num_heads": 3, "self_depth": 0,
             "mask_ratio": 0.9},
            (1, 4),
        ),
        (
            {"img_size": 10, "patch_size": 5, "in_chans": 1, "embed_dim": 6, "depth": 3, "num_heads": 1,
             "decoder_embed_dim": 6, "decoder_num_heads": 2, "self_depth": 3, "mask_ratio": 0.3},
            (3,),
        ),
    ],
)  # fmt: skip
def test_other_sizes_are_taken_from_the_file(tmp_path, checked, config, taps):
    torch.manual_seed(3)
    network = build(config, taps)
    tensors = {f"state.{name}": tensor.clone() for name, tensor in authors_state(network).items()}
    tensors["input.image"] = torch.rand(2, network.in_channels, *network.image_size)
    tensors["input.noise"] = torch.rand(2, network.tokens)
    tensors["input.shuffle_indices"] = tensors["input.noise"].argsort(dim=1)
    tensors["loss_f64"] = torch.zeros(1)
    tensors |= {f"decoder.kv.{tap - 1}": torch.zeros(1) for tap in taps}
    recording = Recording(tensors)
    path = tmp_path / "run"
    save_file(tensors, path, {"config": json.dumps(config)})
    mae.check(check.read(path), recording)
    save_file(tensors | recording.computed, path, recording.texts(**config, batch=2))
    status, lines = checked(path)
    assert (status, failed(lines)) == (0, set())
    assert {"decoder.out", "recon", "grad.mask_token", f"decoder.kv.{taps[0] - 1}"} <= {
        line["tensor"] for line in lines
    }


def test_other_sizes_of_segmentation_are_taken_from_the_file(tmp_path, checked):
    config = {
        "in_channels": 2, "out_channels": 5, "img_size": [14, 6, 10], "patch_size": [7, 3, 5],
        "hidden_size": 12, "num_layers": 5, "num_heads": 2, "feature_size": 3,
    }  # fmt: skip
    torch.manual_seed(5)
    state = build_segmenter(config, taps=(1, 3, 5)).state_dict()
    tensors = {f"state.{name}": tensor.clone() for name, tensor in state.items()}
    tensors["input.image_u8"] = torch.randint(0, 256, (2, 2, 14, 6, 10), dtype=torch.uint8)
    tensors["pretrain.cls_token"] = torch.rand(1, 1, 12)
    tensors |= {f"vit.hidden.{block}.every3th": torch.zeros(1) for block in (0, 2, 4)}
    tensors |= {"logits.stride3": torch.zeros(1), "logits.block_2_5": torch.zeros(1)}
    path = tmp_path / "run"
    save_file(tensors, path, {"config": json.dumps(config)})
    recording = Recording(tensors)
    segmentation.check(check.read(path), recording)
    computed = {
        name: tensor
        for name, tensor in recording.computed.items()
        if not name.startswith("vit.hidden.") or name in tensors
    }
    save_file(tensors | computed, path, recording.texts(**config))
    status, lines = checked(path)
    assert (status, failed(lines)) == (0, set())
    expected = {"logits.stride3", "logits.block_2_5", "vit.hidden.2.every3th", "stage.decoder2.sample"}
    assert expected <= {line["tensor"] for line in lines}


# Changed networks


def shift_taps(network: HiEndMAE) -> None:
    network.taps = [tap - 1 for tap in network.taps]


def reverse_taps(network: HiEndMAE) -> None:
    network.taps = network.taps[::-1]


def coarser_eps(network: HiEndMAE) -> None:
    for part in network.modules():
        if isinstance(part, torch.nn.LayerNorm):
            part.eps = 1e-5


def channel_first(network: HiEndMAE) -> None:
    px, py, pz = network.patch_size
    pattern = "b c (gx px) (gy py) (gz pz) -> b (gx gy gz) (c px py pz)"
    network.fold = Rearrange(pattern, px=px, py=py, pz=pz)


def another_visible_count(network: HiEndMAE) -> None:
    network.visible += 1


@pytest.mark.parametrize(
    ("file", "change", "wrong"),
    [
        ("mae_p8_m60.safetensors", shift_taps, "decoder.out"),
        ("mae_p8_m60.safetensors", reverse_taps, "decoder.out"),
        ("mae_p8_m60.safetensors", coarser_eps, "decoder.out"),
        ("mae_p8_m60.safetensors", another_visible_count, "decoder.tokens_in"),
        ("mae_aniso_c2_m50.safetensors", channel_first, "patches"),
    ],
)
def test_a_changed_network_fails(goldens, checked, monkeypatch, file, change, wrong):
    def build_changed(*arguments: Any) -> HiEndMAE:
        network = build(*arguments)
        change(network)
        return network

    monkeypatch.setattr(mae, "build", build_changed)
    status, lines = checked(goldens / file)
    assert status == 1
    assert wrong in failed(lines)


def next_position(grid: tuple[int, int, int], width: int, class_row: bool = False) -> torch.Tensor:
    return sincos_positions(grid, width, class_row).roll(1, dims=1)


def other_axes_first(grid: tuple[int, int, int], width: int, class_row: bool = False) -> torch.Tensor:
    table = sincos_positions(grid, width, class_row)
    third = width // 3
    return torch.cat([table[..., third : 2 * third], table[..., :third], table[..., 2 * third :]], dim=-1)


@pytest.mark.parametrize("wrong", [next_position, other_axes_first])
def test_changed_positions_fail(goldens, checked, monkeypatch, wrong):
    monkeypatch.setattr(network_module, "sincos_positions", wrong)
    monkeypatch.setattr(positions, "sincos_positions", wrong)
    status, lines = checked(goldens / "mae_p8_m60.safetensors", goldens / "pos_embed.safetensors")
    assert status == 1
    assert {"state.encoder_pos_embed", "g2x5x7_d24.full", "g8x8x8_d528.values"} <= failed(lines)


def test_another_patch_epsilon_fails(goldens, checked, monkeypatch):
    coarse = functools.partial(normalise_patches, epsilon=1e-5)
    monkeypatch.setattr(network_module, "normalise_patches", coarse)
    assert {"target", "loss"} <= failed(checked(goldens / "mae_p8_m60.safetensors")[1])


def test_corrected_decay_where_the_published_is_due_fails(goldens, checked, monkeypatch):
    def corrected(network: Any, decay: float, published: bool = False) -> list[dict[str, Any]]:
        return original(network, decay)

    original = decay_groups.adamw_groups
    monkeypatch.setattr(decay_groups, "adamw_groups", corrected)
    assert failed(checked(goldens / "weight_decay_groups.json")[1]) == {"groups[0].weight_decay_seen_by_optimizer"}


@pytest.fixture(scope="module", autouse=True)
def _leave_no_path() -> Iterator[None]:
    yield
    sys.path.remove(str(Path(__file__).parent))
