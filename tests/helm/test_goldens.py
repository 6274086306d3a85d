import pytest
from tests.helm.chart import EXAMPLES
from tests.helm.goldens import FOLDER, golden


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_renders_as_before(example: str):
    assert golden(example) == (FOLDER / f"{example}.yaml").read_text(encoding="utf-8"), (
        "if the change is meant: python -m tests.helm.goldens"
    )


def test_no_golden_is_left_over():
    assert {path.stem for path in FOLDER.glob("*.yaml")} == EXAMPLES.keys()
