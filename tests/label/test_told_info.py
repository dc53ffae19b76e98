"""What a client tells about a file: plain, small, and nothing that the server acts on."""

import pytest

from monai_ext.base import SettingError
from monai_ext.label.told_info import json_object, told_info


def test_plain_entries_are_kept() -> None:
    assert told_info('{"label_info": [{"name": "liver", "idx": 1}], "client_id": "a"}') == {
        "label_info": [{"name": "liver", "idx": 1}],
        "client_id": "a",
    }
    assert told_info(None) == told_info("") == {}


def test_the_servers_own_entries_are_left_out() -> None:
    assert told_info('{"uncertainty": 9, "uncertainty_of": 1, "name": "x", "strategy": {}, "seg": "1.2"}') == {}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[]", "no JSON object"),
        ("{", "no JSON object"),
        ("[" * 20_000, "no JSON object"),
        ('{"a":' * 20_000, "more than 100000 letters|no JSON object"),
        ('{"a":' * 900 + "1" + "}" * 900, "nested more than 6 deep"),
        ('{"x": "\\ud800"}', "letters that are none"),
        ('{"\\udfff": 1}', "letters that are none"),
        ('{"x": NaN}', "nested|letters"),
        ('{"x": "' + "y" * 100_001 + '"}', "more than 100000 letters"),
    ],
)
def test_the_rest_is_refused(text: str, sentence: str) -> None:
    with pytest.raises(SettingError, match=sentence):
        json_object(text)
