"""Tags as a folder of one Parquet file a label, opened by programs that know nothing of vidx."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import dataset, parquet

from vidx.errors import InputError
from vidx.schema.tables import TAGS
from vidx.search.tag_folder import write_partitioned

ODD = [
    '"quoted"',
    "it's",
    "a/b",
    "x=y",
    "50%",
    "%41",
    "🎬 👨‍👩‍👧",
    "a b",
    " spaces ",
    "a*[b]?",
    "~._-+&",
    "x" * 200,
    "..",
    "Né",
]
LABELS = ["a dog", *ODD, "1", "2019-01-01", "null"]
METADATA = {b"vidx": b'{"tag_set": "kinetics400"}'}
BY_LABEL = dataset.partitioning(pa.schema([("label", pa.string())]), flavor="hive")


def tag(number: int, label: str | None) -> dict[str, Any]:
    return {
        "video_id": f"b1-{number % 3}",
        "clip_id": None if label == "1" else number,
        "level": "clip",
        "path": f"/archive/née {number % 3}.mp4",
        "start_s": float(number),
        "end_s": number + 10.5,
        "label": label,
        "score": 0.25,
        "probability": None if label is None else 0.125 * (number % 8),
        "threshold": None,
        "rank": None if label is None else 1,
        "encoder": "conse",
        "weights_digest": "0" * 64,
        "prompts_digest": "1" * 64,
        "tag_set": "kinetics400",
        "run_id": "run-1",
    }


def tags(path: Path, labels: list[str | None], first: int = 0) -> Path:
    rows = [tag(number, label) for number, label in enumerate(labels, first)]
    parquet.write_table(pa.Table.from_pylist(rows, TAGS.with_metadata(METADATA)), path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two files as one folder; its rows are those of `all_rows`."""
    labels = [*LABELS, None] * 4
    files = [tags(tmp_path / "0.parquet", labels[:30]), tags(tmp_path / "1.parquet", labels[30:], first=30)]
    write_partitioned(files, tmp_path / "by label")
    return tmp_path / "by label"


def all_rows(folder: Path) -> list[dict[str, Any]]:
    return [row for n in range(2) for row in parquet.read_table(folder.parent / f"{n}.parquet").to_pylist()]


def by_start(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(({name: row[name] for name in TAGS.names} for row in rows), key=lambda row: row["start_s"])


SQL_TYPES = {
    pa.string(): "VARCHAR",
    pa.int64(): "BIGINT",
    pa.int32(): "INTEGER",
    pa.float32(): "FLOAT",
    pa.float64(): "DOUBLE",
}


def test_duckdb_opens_it_with_the_same_rows_columns_and_types(folder: Path) -> None:
    found = duckdb.sql(f"SELECT * FROM read_parquet('{folder}/**/*.parquet', hive_partitioning = true)")
    types = dict(zip(found.columns, map(str, found.types), strict=True))
    assert types == {field.name: SQL_TYPES[field.type] for field in TAGS}
    assert by_start(found.to_arrow_table().to_pylist()) == all_rows(folder)


def test_pandas_opens_it_with_the_same_rows_columns_and_types(folder: Path) -> None:
    """Without `partitioning` pyarrow makes `label` a categorical, and can't where a row has none."""
    pandas = pytest.importorskip("pandas")
    found = pandas.read_parquet(folder, partitioning=BY_LABEL, dtype_backend="pyarrow")
    assert {name: kind.pyarrow_dtype for name, kind in found.dtypes.items()} == {f.name: f.type for f in TAGS}
    assert by_start(pa.Table.from_pandas(found, preserve_index=False).to_pylist()) == all_rows(folder)
    plain = pandas.read_parquet(folder, partitioning=BY_LABEL)
    assert (plain["start_s"].dtype, plain["probability"].dtype, len(plain)) == ("float64", "float32", len(found))
    assert set(plain["label"].dropna()) == set(LABELS)


def test_polars_opens_it_with_the_same_rows_columns_and_types(folder: Path) -> None:
    polars = pytest.importorskip("polars")
    found = polars.read_parquet(folder)
    kinds = {pa.string(): polars.String, pa.int64(): polars.Int64, pa.int32(): polars.Int32}
    kinds |= {pa.float32(): polars.Float32, pa.float64(): polars.Float64}
    assert dict(found.schema) == {field.name: kinds[field.type] for field in TAGS}
    assert by_start(found.to_dicts()) == all_rows(folder)


def test_folders_are_named_as_pyarrow_names_them(folder: Path, tmp_path: Path) -> None:
    rows = pa.table({"label": pa.array([*LABELS, None]), "x": [0] * (len(LABELS) + 1)})
    dataset.write_dataset(rows, tmp_path / "arrow", format="parquet", partitioning=BY_LABEL)
    assert files_in(folder) == files_in(tmp_path / "arrow")
    assert "label=__HIVE_DEFAULT_PARTITION__/part-0.parquet" in files_in(folder)


def files_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_every_part_has_the_metadata_and_all_columns_but_label(folder: Path) -> None:
    expected = TAGS.remove(TAGS.get_field_index("label"))
    for part in files_in(folder):
        assert parquet.read_schema(folder / part).equals(expected.with_metadata(METADATA), check_metadata=True)


@given(st.lists(st.lists(st.sampled_from(["a dog", "snow", "🎬", None]), max_size=30), min_size=1, max_size=3))
def test_every_row_is_in_the_part_of_its_label(
    tmp_path_factory: pytest.TempPathFactory, files: list[list[str | None]]
) -> None:
    tmp_path = tmp_path_factory.mktemp("partitioned")
    paths = [tags(tmp_path / f"{n}.parquet", labels, first=100 * n) for n, labels in enumerate(files)]
    write_partitioned(paths, tmp_path / "out")
    found: dict[str | None, list[float]] = {}
    for part in files_in(tmp_path / "out"):
        label = unquote(part.split("/")[0].removeprefix("label="))
        starts = parquet.ParquetFile(tmp_path / "out" / part).read(["start_s"])["start_s"].to_pylist()
        found[None if label.startswith("__HIVE") else label] = sorted(starts)
    expected: dict[str | None, list[float]] = {}
    for n, labels in enumerate(files):
        for number, label in enumerate(labels, 100 * n):
            expected.setdefault(label, []).append(float(number))
    assert found == (expected or {None: []})


def test_files_without_arrows_own_schema_keep_their_metadata(tmp_path: Path) -> None:
    """As they are where texts were written as dictionaries, so that Arrow does not read dictionaries."""
    source = tags(tmp_path / "tags.parquet", ["a dog", None])
    with parquet.ParquetWriter(tmp_path / "plain.parquet", TAGS, store_schema=False) as writer:
        writer.write_table(parquet.read_table(source))
        writer.add_key_value_metadata(METADATA)
    write_partitioned([tmp_path / "plain.parquet"], tmp_path / "out")
    for part in files_in(tmp_path / "out"):
        assert parquet.read_schema(tmp_path / "out" / part).metadata == METADATA
    assert len(files_in(tmp_path / "out")) == 2


def test_no_rows_make_one_empty_part_that_has_the_columns(tmp_path: Path) -> None:
    write_partitioned([tags(tmp_path / "none.parquet", [])], tmp_path / "out")
    assert files_in(tmp_path / "out") == ["label=__HIVE_DEFAULT_PARTITION__/part-0.parquet"]
    found = duckdb.sql(f"SELECT * FROM read_parquet('{tmp_path}/out/**/*.parquet', hive_partitioning = true)")
    assert (sorted(found.columns), found.fetchall()) == (sorted(TAGS.names), [])


def test_an_empty_folder_is_filled_and_a_link_to_one_is_kept(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    write_partitioned([tags(tmp_path / "tags.parquet", ["a dog"])], tmp_path / "link")
    assert files_in(tmp_path / "real") == ["label=a%20dog/part-0.parquet"]
    assert (tmp_path / "link").is_symlink()


@pytest.mark.parametrize("there", ["full", "file"])
def test_what_is_there_is_never_replaced(tmp_path: Path, there: str) -> None:
    source = tags(tmp_path / "tags.parquet", ["a dog"])
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    (tmp_path / "file").touch()
    before = files_in(tmp_path)
    with pytest.raises(InputError, match="is there already") as caught:
        write_partitioned([source], tmp_path / there)
    assert caught.value.hint == "name a new folder"
    assert files_in(tmp_path) == before


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"can't write .*none/out: No such file"):
        write_partitioned([tags(tmp_path / "tags.parquet", ["a dog"])], tmp_path / "none" / "out")


def test_a_label_that_can_name_no_folder_is_told_and_nothing_is_left(tmp_path: Path) -> None:
    source = tags(tmp_path / "tags.parquet", ["a dog", "é" * 200])
    with pytest.raises(InputError, match="File name too long") as caught:
        write_partitioned([source], tmp_path / "out")
    assert "FILE.parquet" in caught.value.hint
    assert [path.name for path in tmp_path.iterdir()] == ["tags.parquet"]


_CHILD = """
import sys, time
from pathlib import Path
from vidx.search import tag_folder
copy = tag_folder._copy
def slow(files, folder):
    copy(files, folder)
    print("parts", flush=True)
    time.sleep(60)
tag_folder._copy = slow
tag_folder.write_partitioned([Path(sys.argv[1])], Path(sys.argv[2]))
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_is_ended_leaves_nothing_under_the_name(tmp_path: Path, how: signal.Signals) -> None:
    source = tags(tmp_path / "tags.parquet", ["a dog", "snow"])
    command = [sys.executable, "-c", _CHILD, source, tmp_path / "out"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "parts\n"
        child.send_signal(how)
        assert child.wait(timeout=30) != 0
    assert not (tmp_path / "out").exists()
    assert (how == signal.SIGINT) == ([path.name for path in tmp_path.iterdir()] == ["tags.parquet"])
    write_partitioned([source], tmp_path / "out")
    assert len(files_in(tmp_path / "out")) == 2
