"""What a head of the large decoder costs for being 33 numbers wide: attention of 33, 40 and 48, forward and backward.

    python tests/benchmarks/attention_heads.py [--batch 64]

Tensor cores take heads in multiples of 8; torch pads others at every call. One JSON line a row, in bfloat16.
"""

import argparse

import torch
from pretraining_step import tell, times_of
from torch.nn import functional as F


def main() -> None:
    """Print one JSON line a row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int, default=64)
    args = parser.parse_args()
    device = torch.device(args.device)
    for tokens, heads, width in ((513, 16, 33), (513, 16, 40), (513, 16, 48), (129, 16, 96)):
        shape = (args.batch, heads, tokens, width)
        parts = [torch.randn(shape, device=device, dtype=torch.bfloat16, requires_grad=True) for _ in range(3)]
        back = torch.randn(shape, device=device, dtype=torch.bfloat16)

        def both(parts: list[torch.Tensor] = parts, back: torch.Tensor = back) -> None:
            F.scaled_dot_product_attention(*parts).backward(back)

        tell({"tokens": tokens, "head_width": width, "ms": round(times_of([both], device, 10)[0] * 1e3, 3)})


if __name__ == "__main__":
    main()
