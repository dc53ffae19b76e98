"""Anchors: for each class one text feature of the normal and one of the abnormal state."""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from monai_ext.base import SettingError
from monai_ext.networks.clip_adapters import TextAdapter
from monai_ext.networks.clip_models import ClipModel
from monai_ext.networks.clip_prompts import STATES, ClassPrompts
from monai_ext.networks.clip_towers import (
    as_float32,
    plain_blocks,
    scoped_hooks,
    text_features,
    text_tower,
)

_KEPT = 256  # classes in the cache, more than any published set has


def anchors_of(features: Sequence[Tensor]) -> Tensor:
    """Average the prompts of each state: normalised, averaged, normalised again.

    Shape:
        ``(n, e)`` for each state ``-> (e, states)``
    """
    means = [F.normalize(as_float32(state), dim=-1).mean(dim=0) for state in features]
    return F.normalize(torch.stack(means, dim=1), dim=0)


class AnchorMaker:
    """Makes anchors with a CLIP's text tower, adapted or not, and remembers them by content.

    Without gradients an anchor is made once for its sentences and weights: weights that changed, in whatever
    way, are noticed by their values. Of the frozen CLIP only replaced or written tensors are noticed.

    Args:
        clip: whose text tower to use.
        adapter: its adapter.
    """

    def __init__(self, clip: ClipModel, adapter: TextAdapter) -> None:
        self.clip, self.adapter = clip, adapter
        self._made: OrderedDict[tuple[ClassPrompts, bool], Tensor] = OrderedDict()
        self._adapter_then: list[Tensor] = []
        self._clip_then: list[tuple[int, int]] = []

    def anchors(self, prompts: Sequence[ClassPrompts], adapted: bool = True) -> Tensor:
        """Return the anchors of each entry.

        Shape:
            ``-> (len(prompts), e, 2)``, normal first

        Raises:
            SettingError: a prompt has more tokens than the tower reads.
        """
        different = dict.fromkeys(prompts)
        if not different:
            raise SettingError("prompts: none given; give one ClassPrompts per image", code="setting.prompt")
        trains = adapted and any(parameter.requires_grad for parameter in self.adapter.parameters())
        if torch.is_grad_enabled() and trains:
            made = {entry: self._make(entry, adapted) for entry in different}
        else:
            self._forget_what_changed()
            made = {entry: self._remembered(entry, adapted) for entry in different}
        return torch.stack([made[entry] for entry in prompts])

    def features(self, sentences: Sequence[str] | Tensor, adapted: bool = True) -> Tensor:
        """Return the feature of each sentence or row of token ids, not normalised: ``(n, e)``.

        Raises:
            SettingError: a sentence has more tokens than the tower reads, or an id is none of its vocabulary.
        """
        tower = text_tower(self.clip.model)
        ids = sentences if isinstance(sentences, Tensor) else self._tokens(sentences)
        vocabulary = tower.token_embedding.num_embeddings
        if int(ids.max()) >= vocabulary:
            raise SettingError(
                f"{self.clip.tag}: token {int(ids.max())} is none of its vocabulary of {vocabulary}; "
                "give the tokenizer that belongs to the CLIP",
                code="setting.tokenizer",
            )
        ids = ids.to(tower.token_embedding.weight.device).long()
        changes = self.adapter.residuals() if adapted else []
        with plain_blocks(tower.transformer), scoped_hooks(tower.transformer.resblocks, changes):
            return text_features(self.clip.model, ids, self.adapter.project if adapted else None)

    def _tokens(self, sentences: Sequence[str]) -> Tensor:
        if self.clip.tokenizer is None:  # ClipModel puts one in
            raise SettingError(f"{self.clip.tag}: no tokenizer; give one", code="setting.tokenizer")
        return self.clip.tokenizer(sentences)

    def _make(self, entry: ClassPrompts, adapted: bool) -> Tensor:
        sentences = [getattr(entry, state) for state in STATES]
        features = self.features([sentence for state in sentences for sentence in state], adapted)
        return anchors_of(features.split([len(state) for state in sentences]))

    def _remembered(self, entry: ClassPrompts, adapted: bool) -> Tensor:
        key = (entry, adapted)
        if key not in self._made:
            # Kept for callers in other modes: in full precision, and fit to be saved for a backward pass.
            device = next(self.adapter.parameters()).device.type
            with torch.inference_mode(False), torch.no_grad(), torch.autocast(device, enabled=False):
                self._made[key] = self._make(entry, adapted)
            if len(self._made) > _KEPT:
                self._made.popitem(last=False)
        self._made.move_to_end(key)
        return self._made[key]

    def _forget_what_changed(self) -> None:
        adapter_now = [parameter.detach() for parameter in self.adapter.parameters()]
        clip_now = [(tensor.data_ptr(), tensor._version) for tensor in _text_tensors(self.clip.model)]
        same = (
            clip_now == self._clip_then
            and [(tensor.device, tensor.shape) for tensor in adapter_now]
            == [(tensor.device, tensor.shape) for tensor in self._adapter_then]
            and _alike(adapter_now, self._adapter_then)
        )
        if not same:
            self._made.clear()
            self._adapter_then, self._clip_then = [tensor.clone() for tensor in adapter_now], clip_now


def _alike(ours: list[Tensor], theirs: list[Tensor]) -> bool:
    # One answer for all of them, for each answer waits for the device.
    return bool(torch.stack([(a == b).all() for a, b in zip(ours, theirs, strict=True)]).all())


def _text_tensors(model: nn.Module) -> list[Tensor]:
    return [tensor for name, tensor in model.named_parameters() if not name.startswith("visual.")]
