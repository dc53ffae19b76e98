"""The published pretraining step, written plainly: what `pretraining_step.py` compares with.

It computes on the parameters of our network, so that both can be compared number by number: attention of the encoder
as two products with a softmax between, every token of the decoder through the head, the loss read after each step,
float16 with a scaled loss on a card, one AdamW kernel a parameter or as torch chooses.
"""

import torch
from einops import rearrange
from monai.networks.blocks.transformerblock import TransformerBlock
from torch import Tensor
from torch.nn import functional as F

from monai_ext.networks import HiEndMAE, take_tokens


def heads_of(tokens: Tensor, heads: int) -> Tensor:
    """``(b, n, h * d) -> (b, h, n, d)``."""
    return rearrange(tokens, "b n (h d) -> b h n d", h=heads)


def mixed(query: Tensor, key: Tensor, value: Tensor, plain: bool) -> Tensor:
    """Attend, with the matrix of weights written out if ``plain``: ``(b, h, n, d) -> (b, n, h * d)``."""
    if plain:
        weights = (query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5).softmax(dim=-1)
        answer = weights @ value
    else:
        answer = F.scaled_dot_product_attention(query, key, value)
    return rearrange(answer, "b h n d -> b n (h d)")


def block_of(block: TransformerBlock, tokens: Tensor, memory: Tensor | None = None, plain: bool = False) -> Tensor:
    """Run a pre-norm block on its own parameters."""
    own = block.attn
    query, key, value = own.qkv(block.norm1(tokens)).chunk(3, dim=-1)
    parts = [heads_of(part, own.num_heads) for part in (query, key, value)]
    tokens = tokens + own.out_proj(mixed(*parts, plain))
    if memory is not None:
        other = block.cross_attn
        sources = other.to_q(block.norm_cross_attn(tokens)), other.to_k(memory), other.to_v(memory)
        parts = [heads_of(part, other.num_heads) for part in sources]
        tokens = tokens + other.out_proj(mixed(*parts, plain=False))
    return tokens + block.mlp.linear2(F.gelu(block.mlp.linear1(block.norm2(tokens))))


def plain_target(patches: Tensor) -> Tensor:
    """Normalise each patch by its mean and biased variance: ``(b, n, p) -> (b, n, p)``."""
    variance = patches.var(dim=-1, keepdim=True, unbiased=False)
    return (patches - patches.mean(dim=-1, keepdim=True)) / (variance + 1e-6).sqrt()


def plain_loss(network: HiEndMAE, image: Tensor, shuffle: Tensor) -> Tensor:
    """Return the mean squared error of the masked patches: ``(b, c, x, y, z)``, ``(b, n)`` -> a scalar."""
    patches = network.fold(image)
    visible = shuffle[:, : network.visible]
    tokens = network.encoder.patch_embedding(take_tokens(patches, visible))
    tokens = tokens + take_tokens(network.encoder_pos_embed, visible)
    tokens = torch.cat([network.encoder.cls_token.expand(len(tokens), -1, -1), tokens], dim=1)
    hidden = []
    for block in network.encoder.blocks:
        tokens = block_of(block, tokens, plain=True)
        hidden.append(tokens)
    *memories, queries = (
        project(source)
        for project, source in zip(
            network.encoder_to_decoder,
            [*(hidden[tap - 1] for tap in network.taps), network.encoder.norm(tokens)],
            strict=True,
        )
    )
    masks = network.mask_token.expand(len(queries), network.tokens - network.visible, -1).to(queries.dtype)
    all_tokens = torch.cat([queries[:, 1:], masks], dim=1) + take_tokens(network.decoder_pos_embed, shuffle)
    decoded = torch.cat([queries[:, :1], all_tokens], dim=1)
    for block in network.decoder.blocks:
        decoded = block_of(block, decoded)
    for block, memory in zip(network.decoder.cross_attention_blocks, reversed(memories), strict=True):
        decoded = block_of(block, decoded, memory)
    prediction = network.decoder.head(network.decoder.norm(decoded))[:, 1:]
    squares = (prediction - take_tokens(plain_target(patches), shuffle)).square().mean(dim=-1)
    hidden_ones = (torch.arange(network.tokens, device=image.device) >= network.visible).to(squares.dtype)
    return (squares * hidden_ones).sum() / (hidden_ones.sum() * len(image))


class PlainStep:
    """The published step.

    Args:
        network: whose parameters learn.
        device: where; float16 on a card, float32 on a CPU, which trains in no half precision of the authors'.
    """

    def __init__(self, network: HiEndMAE, device: torch.device) -> None:
        self.network, self.device = network, device
        learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(learning, lr=1e-4, betas=(0.9, 0.95), weight_decay=0.05)
        self.scaler = torch.amp.GradScaler("cuda", enabled=device.type == "cuda")

    def __call__(self, image: Tensor) -> float:
        """Take one step and return its loss."""
        shuffle = torch.rand(len(image), self.network.tokens, device=self.device).argsort(dim=1)
        self.optimizer.zero_grad()
        with torch.autocast(self.device.type, torch.float16, enabled=self.device.type == "cuda"):
            loss = plain_loss(self.network, image, shuffle)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss.item()
