"""What `ops` says and the tables of the docs, made from the operations themselves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from pipeline.cli import catalogue
from pipeline.cli.main import main
from pipeline.config import load_pipeline
from pipeline.model.errors import PipelineError
from pipeline.operations.registry import our_operations
from tests.sources import PROJECT


def test_the_table_in_the_readme_is_current() -> None:
    assert catalogue.operations_table() in (PROJECT / "README.md").read_text()


def test_the_table_is_put_between_its_marks(tmp_path: Path) -> None:
    current = (PROJECT / "README.md").read_text()
    table = catalogue.operations_table()
    (tmp_path / "README.md").write_text(current.replace(table, "an older table"))
    catalogue.write_tables(tmp_path / "README.md")
    assert (tmp_path / "README.md").read_text() == current


@pytest.mark.parametrize("name", sorted(our_operations()))
def test_every_operation_explains_itself(name: str) -> None:
    facts = catalogue.describe_operation(name)
    assert all(entry["description"] for entry in facts["parameters"] + facts["common_parameters"])
    assert facts["outputs"]
    text = "\n".join(catalogue.format_operation(facts))
    assert all(entry["name"] in text for entry in facts["parameters"])
    assert "needs around a block" in text


def test_the_example_of_window_is_planned() -> None:
    example = catalogue.describe_operation("window")["of_example"]
    assert example["halo"] == [1, 1, 1, 1]
    assert example["outputs"]["mean"] == {"uint16": "float32", "float32": "float32"}


@pytest.mark.parametrize("op", sorted(our_operations()))
def test_the_example_of_every_operation_is_valid(op: str) -> None:
    step = yaml.safe_load(our_operations()[op].example)
    assert step["op"] == op
    inputs = {name: "x.zarr" for name in ("image", "labels", "scl") if name in our_operations()[op].example}
    before = [yaml.safe_load(our_operations()["palette"].example)] if op == "quantize" else []  # whose colours it reads
    load_pipeline({"inputs": inputs, "steps": [*before, step], "output": {"path": "y.zarr"}})


@pytest.mark.parametrize("path", sorted((PROJECT / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_the_configs_are_valid(path: Path) -> None:
    config, _ = load_pipeline(path, trust=True)
    again, _ = load_pipeline(config.to_dict())
    assert again.to_dict() == config.to_dict()


@pytest.mark.parametrize("path", sorted((PROJECT / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_the_configs_that_need_trust_say_so(path: Path) -> None:
    if "run configs/" + path.name + " --trust" in path.read_text():
        with pytest.raises(PipelineError, match="add --trust"):
            load_pipeline(path, trust=False)
    else:
        load_pipeline(path, trust=False)


def test_a_word_of_others_is_answered_with_the_line_to_paste() -> None:
    shown = CliRunner().invoke(main, ["ops", "hillshade"])
    assert shown.exit_code == 0
    summary = catalogue.describe_operation("terrain")["summary"]
    assert shown.stdout.splitlines() == [
        f"hillshade is here terrain: {summary}",
        "  - {name: terrain, op: terrain, input: image, outputs: [hillshade]}",
        "rasterpipe ops terrain shows its parameters",
    ]
    facts = json.loads(CliRunner().invoke(main, ["ops", "BoxBlur", "--json"]).stdout)
    assert (facts["op"], facts["example"]) == (
        "window",
        "{name: window, op: window, input: image, size: 3, statistics: [mean]}",
    )
    assert "`region`" in CliRunner().invoke(main, ["ops", "clip"]).stdout
    assert CliRunner().invoke(main, ["ops", "nothing_like_it"]).exit_code == 2
