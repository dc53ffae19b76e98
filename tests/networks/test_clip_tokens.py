import open_clip
import pytest
import torch

from monai_ext.base import SettingError
from monai_ext.networks import AAClip, ClipModel
from monai_ext.networks.clip_tokens import StrictTokenizer


def test_ids_are_those_of_open_clip():
    sentences = ["a photo of a dark bottle.", "!", ""]
    assert torch.equal(StrictTokenizer()(sentences), open_clip.tokenize(sentences))


@pytest.mark.parametrize("words", [75, 76, 400])
def test_a_sentence_that_would_be_cut_is_refused(words):
    sentence = " ".join(["liver"] * words)
    tokenizer = StrictTokenizer()
    if words == 75:  # with start and end of text: 77
        assert tokenizer([sentence])[0, -1] == 49407
    else:
        count = "308 or more" if words == 400 else "78"
        with pytest.raises(SettingError, match=rf"prompt 'liver .*\.\.\.': {count} tokens, the CLIP reads 77; shorten"):
            tokenizer(["short", sentence])


def test_a_lent_model_s_context_counts(clip_config):
    text = {**clip_config["text_cfg"], "context_length": 8}
    clip = ClipModel(open_clip.CLIP(**{**clip_config, "text_cfg": text}))
    assert clip.tokenizer(["a liver."]).shape == (1, 8)
    with pytest.raises(SettingError, match=r"9 tokens, the CLIP reads 8"):
        clip.tokenizer(["a b c d e f g"])


def test_a_smaller_vocabulary_is_noticed(clip_config):
    text = {**clip_config["text_cfg"], "vocab_size": 100}
    model = AAClip(open_clip.CLIP(**{**clip_config, "text_cfg": text}))
    with pytest.raises(SettingError, match=r"token 49407 is none of its vocabulary of 100; give the tokenizer"):
        model.text.features(["a liver."])


def test_a_tokenizer_that_cannot_be_had_says_so(clip_config):
    from monai_ext.networks import load_clip

    config = {**clip_config, "text_cfg": {**clip_config["text_cfg"], "hf_tokenizer_name": "no/such-tokenizer"}}
    clip = load_clip(config, None)  # fetches nothing
    with pytest.raises(SettingError, match=r"no/such-tokenizer: the tokenizer cannot be had .*install transformers"):
        clip.tokenizer(["a liver."])
