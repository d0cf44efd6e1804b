"""Words of others: each means one operation, whose line can be pasted."""

from __future__ import annotations

from collections import Counter

import pytest

from pipeline.config import parse
from pipeline.operations.registry import our_operations, registry
from pipeline.operations.synonyms import ELSEWHERE, SYNONYMS, elsewhere, meant, unknown_operation

WORDS = {word.strip() for words in (*SYNONYMS.values(), *ELSEWHERE) for word in words.split(",")}
MEANT = {
    "focal": "window",
    "zonal": "label_stats",
    "convolve2d": "convolve",
    "scipy.signal.convolve2d": "convolve",
    "slope": "terrain",
    "hillshade": "terrain",
    "otsu": "threshold",
    "NDVI": "index",
    "uniform_filter": "window",
    "r.neighbors": "window",
    "BoxBlur": "window",
    "raster calculator": "calc",
    "reclassify": "calc",
    "sieve": "components",
    "median filter": "window",
    "skimage.measure.label": "components",
    "regionprops": "label_stats",
}


def test_words_are_of_one_operation_each_and_none_is_one_itself() -> None:
    plain = Counter(
        "".join(filter(str.isalnum, word.casefold()))
        for words in (*SYNONYMS.values(), *ELSEWHERE)
        for word in words.split(",")
    )
    assert [word for word, number in plain.items() if number > 1] == []
    assert not WORDS & set(our_operations())


@pytest.mark.parametrize("key", SYNONYMS)
def test_lines_are_steps(key: str) -> None:
    word = SYNONYMS[key].split(",")[0]
    found = meant(word, registry())
    assert found is not None
    assert found.op == key.split(",")[0]
    operation = registry()[found.op]
    step = operation.model_validate(parse(f"step: {found.line(operation.example)}").data["step"])
    assert all(
        field.split(":")[0].strip() in step.model_fields_set for field in found.fields.split(", ", 1)[:1] if field
    )


@pytest.mark.parametrize("word", MEANT)
def test_words_are_found(word: str) -> None:
    found = meant(word, registry())
    assert found is not None
    assert found.op == MEANT[word]


def test_an_unknown_operation_is_told_with_ours() -> None:
    names = list(our_operations())
    assert unknown_operation("zonal", names) == "unknown operation 'zonal'; here it is called 'label_stats'"
    assert unknown_operation("sieve", names) == (
        "unknown operation 'sieve'; here it is called 'components', with `min_size: 10, removed: largest_neighbour`"
    )
    assert unknown_operation("polygonize", names) == f"unknown operation 'polygonize'; {elsewhere('polygonize')}"
    assert unknown_operation("focal", ["calc"]) == "unknown operation 'focal' (valid: calc)"
