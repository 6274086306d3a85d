import pytest

from autoglm_backend.profiles import Profile


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('{"max_pixel": 5}', "max_pixel is not a field of a profile; there are .*max_pixels"),
        ('{"dtype": "int8"}', "dtype is 'int8', must be one of auto, float32"),
        ('{"default_exit": "early"}', "default_exit is 'early', must be one of fixed, lossless, certified"),
        ('{"max_batch_size": true}', "max_batch_size is True, must be a whole number"),
        ('{"default_depth": 6}', "wrong type"),
        ('{"offload_encoders_s": 0}', "must be a number of seconds above 0"),
        ("[]", "no JSON object"),
    ],
)
def test_a_wrong_field_is_named(text: str, complaint: str):
    with pytest.raises(ValueError, match=complaint):
        Profile.from_json(text)
