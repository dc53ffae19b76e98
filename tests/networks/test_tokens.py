import pytest
import torch
from einops import rearrange
from torch.testing import assert_close

from monai_ext.networks import PatchTokens, TokensToVolume, draw_shuffle, hide_tokens, take_tokens


@pytest.fixture
def volume() -> torch.Tensor:
    return torch.arange(2 * 3 * 4 * 9 * 20, dtype=torch.float32).reshape(2, 3, 4, 9, 20)  # no two axes alike


def test_fold_is_the_published_patchify(golden):
    tokens = PatchTokens(tuple(golden.config["patch_size"]))(golden.tensors["input.image"])
    assert_close(tokens, golden.tensors["patches"], rtol=0, atol=0)  # moves numbers, computes none


@pytest.mark.parametrize("wrong", ["(c px py pz)", "(py px pz c)", "(px pz py c)"])
def test_golden_tells_orders_apart(aniso_golden, wrong):
    px, py, pz = aniso_golden.config["patch_size"]
    pattern = f"b c (gx px) (gy py) (gz pz) -> b (gx gy gz) {wrong}"
    tokens = rearrange(aniso_golden.tensors["input.image"], pattern, px=px, py=py, pz=pz)
    assert not torch.equal(tokens, aniso_golden.tensors["patches"])


def test_a_token_holds_its_patch_with_the_channel_fastest(volume):
    tokens = PatchTokens((2, 3, 5))(volume)
    gx, gy, gz = 1, 2, 3
    patch = volume[1, :, 2 * gx : 2 * gx + 2, 3 * gy : 3 * gy + 3, 5 * gz : 5 * gz + 5]
    assert_close(tokens[1, (gx * 3 + gy) * 4 + gz], patch.permute(1, 2, 3, 0).flatten(), rtol=0, atol=0)


def test_unfold_undoes_fold(volume):
    assert torch.equal(TokensToVolume((2, 3, 5), (2, 3, 4))(PatchTokens((2, 3, 5))(volume)), volume)


@pytest.mark.parametrize(
    ("axis", "shape", "padded"), [("x", (5, 9, 20), 6), ("y", (4, 7, 10), 9), ("z", (4, 9, 11), 15)]
)
def test_partial_patch_says_how_to_pad(axis, shape, padded):
    with pytest.raises(ValueError, match=rf"axis {axis}: \d+ voxels .* pad the volume to {padded} "):
        PatchTokens((2, 3, 5))(torch.zeros(1, 1, *shape))


def test_take_and_hide_follow_the_sample():
    tokens = torch.arange(2 * 5 * 3, dtype=torch.float32).reshape(2, 5, 3) + 1
    numbers = torch.tensor([[4, 0], [1, 3]])
    taken, hidden = take_tokens(tokens, numbers), hide_tokens(tokens, numbers)
    for sample in range(2):
        for place, number in enumerate(numbers[sample]):
            assert torch.equal(taken[sample, place], tokens[sample, number])
        kept = [n for n in range(5) if n not in numbers[sample]]
        assert torch.equal(hidden[sample, kept], tokens[sample, kept])
        assert not hidden[sample, numbers[sample]].any()


def test_take_repeats_one_table_for_all_samples():
    table = torch.randn(1, 5, 3)
    numbers = torch.tensor([[4, 0], [1, 3]])
    assert torch.equal(take_tokens(table, numbers), torch.stack([table[0, [4, 0]], table[0, [1, 3]]]))


def test_every_sample_draws_its_own_order_and_a_seed_repeats_it():
    first = draw_shuffle(3, 47, torch.Generator().manual_seed(2))
    again = draw_shuffle(3, 47, torch.Generator().manual_seed(2))
    other = draw_shuffle(3, 47, torch.Generator().manual_seed(3))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first[0], first[1])
    assert torch.equal(first.sort(dim=1).values, torch.arange(47).expand(3, -1))
