import re

import pytest

from autoglm_training.world.elements import Split
from autoglm_training.world.instructions import TEXT_FAMILIES
from autoglm_training.world.labels import LANGUAGES, Language
from autoglm_training.world.phrases import families, wordings
from autoglm_training.world.phrases_daily_en import DAILY_CORES as DAILY_EN
from autoglm_training.world.phrases_daily_zh import DAILY_CORES as DAILY_ZH
from autoglm_training.world.phrases_screen_en import SCREEN_CORES as SCREEN_EN
from autoglm_training.world.phrases_screen_zh import SCREEN_CORES as SCREEN_ZH

TABLES = {"en": (DAILY_EN, SCREEN_EN), "zh": (DAILY_ZH, SCREEN_ZH)}
ROWS = [
    (language, family, cores) for language in LANGUAGES for table in TABLES[language] for family, cores in table.items()
]


def bare(sentence: str) -> str:
    return re.sub("[~.!?,。！？， ]", "", sentence).lower()


def slots_of(wording: str) -> set[str]:
    return set(re.findall(r"{(\w)}", wording))


@pytest.mark.parametrize(("language", "family", "cores"), ROWS)
def test_training_says_every_daily_wording(language: Language, family: str, cores: tuple[str, ...]):
    assert family in families()
    assert set(cores) <= set(wordings(family, language, "train"))


@pytest.mark.parametrize(("language", "family", "cores"), ROWS)
def test_no_daily_wording_judges_the_model(language: Language, family: str, cores: tuple[str, ...]):
    judges: tuple[Split, ...] = ("validation", "test")
    held = {bare(core) for split in judges for name in families() for core in wordings(name, language, split)}
    assert not held & {bare(core) for core in cores}


@pytest.mark.parametrize(("language", "family", "cores"), ROWS)
def test_a_daily_wording_has_the_slots_of_its_family(language: Language, family: str, cores: tuple[str, ...]):
    known = set.union(*(slots_of(core) for core in wordings(family, language, "test")))
    # "the cheapest one" may leave the noun out; nothing else can go.
    for core in cores:
        assert slots_of(core) - {"k"} == known - {"k"}, core


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_daily_command_means_two_things(language: Language):
    meant: dict[str, set[str]] = {}
    for family in TEXT_FAMILIES:
        for core in wordings(family, language, "train"):
            meant.setdefault(bare(core), set()).add(family)
    daily = {bare(core) for cores in TABLES[language][0].values() for core in cores}
    assert {core: both for core, both in meant.items() if core in daily and len(both) > 1} == {}
