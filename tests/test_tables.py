"""The tables hold exactly what their schemas say and can be read without vidx."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vidx.schema import tables

CLIP: dict[str, Any] = {
    "clip_id": 2**40,
    "video_id": "b1-é",
    "start_s": 0.1,
    "end_s": 10.1,
    "frame_pts": [3, 3, 2**40],
    "frame_pts_s": [0.1, 0.1, 1 / 3],
    "vector": np.arange(5, dtype=np.float32) / 7,
}


def with_vector(vector: np.ndarray) -> dict[str, Any]:
    return {**CLIP, "vector": vector}


def test_clips_come_back_from_delta_bit_for_bit(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [
        {**CLIP, "clip_id": number, "frame_pts": list(range(number)), "vector": rng.standard_normal(5, np.float32)}
        for number in range(40)
    ]
    DeltaTable.create(tmp_path, schema=tables.CLIPS)
    for at in (0, 15):
        write_deltalake(tmp_path, tables.clips_table(rows[at : at + 15 if at == 0 else None]), mode="append")
    stored = sorted(DeltaTable(tmp_path).to_pyarrow_table().to_pylist(), key=lambda row: row["clip_id"])
    assert len(stored) == 40
    for row, written in zip(stored, rows, strict=True):
        assert np.array_equal(np.float32(row.pop("vector")), written["vector"])
        assert row == {name: written[name] for name in row}


@given(hnp.arrays(np.float32, st.tuples(st.integers(1, 8), st.integers(1, 8)), elements=st.floats(width=32)))
def test_vectors_of_a_clips_table_are_those_given(vectors: np.ndarray) -> None:
    table = tables.clips_table([with_vector(vector) for vector in vectors])
    assert table.schema == tables.CLIPS
    flat = table["vector"].combine_chunks().flatten().to_numpy()
    assert flat.tobytes() == vectors.tobytes()
    assert [len(vector) for vector in table["vector"]] == [vectors.shape[1]] * len(vectors)


def test_vectors_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="same shape"):
        tables.clips_table([with_vector(np.zeros(5, np.float32)), with_vector(np.zeros(4, np.float32))])


@pytest.mark.parametrize("column", tables.CLIPS.names)
def test_a_clip_without_one_of_its_columns_is_refused(column: str) -> None:
    with pytest.raises(KeyError, match=column):
        tables.clips_table([{name: value for name, value in CLIP.items() if name != column}])


@pytest.mark.parametrize("name", tables.SINGLE)
def test_a_row_without_one_of_its_columns_is_refused(name: str) -> None:
    schema = tables.SINGLE[name]
    whole: dict[str, Any] = dict.fromkeys(schema.names)
    assert tables.table(schema, [whole]).num_rows == 1
    for column in schema.names:
        with pytest.raises(KeyError, match=column):
            tables.table(schema, [{key: value for key, value in whole.items() if key != column}])


@pytest.mark.parametrize("name", tables.SINGLE)
def test_no_rows_are_an_empty_table_of_the_same_schema(name: str) -> None:
    assert tables.table(tables.SINGLE[name], []) == tables.SINGLE[name].empty_table()


def test_a_value_of_the_wrong_type_is_refused() -> None:
    row: dict[str, Any] = dict.fromkeys(tables.FILES.names)
    with pytest.raises(pa.ArrowException):
        tables.table(tables.FILES, [{**row, "size": "many"}])


@pytest.fixture(params=[*tables.SINGLE, "clips"])
def table_folder(indexed_store: Path, request: pytest.FixtureRequest) -> tuple[pa.Schema, Path]:
    """The schema and the folder of every table of a store made by `vidx index`."""
    if request.param == "clips":
        [folder] = (indexed_store / "clips").iterdir()
        return tables.CLIPS, folder
    return tables.SINGLE[request.param], indexed_store / request.param


@pytest.mark.slow
def test_plain_deltalake_pandas_and_duckdb_read_every_table_alike(table_folder: tuple[pa.Schema, Path]) -> None:
    schema, folder = table_folder
    delta = DeltaTable(str(folder))
    arrow = delta.to_pyarrow_table()
    assert arrow.schema.names == schema.names
    assert arrow.num_rows > 0

    files = [str(folder / name) for name in pa.table(delta.get_add_actions())["path"].to_pylist()]
    frame = pd.concat([pd.read_parquet(file) for file in files], ignore_index=True)
    assert list(frame.columns) == schema.names
    assert len(frame) == arrow.num_rows

    relation = duckdb.read_parquet(files)
    assert relation.columns == schema.names
    key = next(name for name in ("clip_id", "path", "video_id", "run_id") if name in schema.names)
    assert sorted(value for (value,) in relation.select(key).fetchall()) == sorted(arrow[key].to_pylist())
    assert sorted(frame[key]) == sorted(arrow[key].to_pylist())


@pytest.mark.slow
def test_duckdb_counts_the_clips_of_a_path_in_plain_sql(indexed_store: Path) -> None:
    """What a user without vidx may write: three tables joined by their keys."""
    [clips] = (indexed_store / "clips").iterdir()
    rows = duckdb.sql(
        f"""SELECT f.path, count(*), min(len(c.vector)), max(len(c.vector))
        FROM '{indexed_store}/files/*.parquet' f
        JOIN '{indexed_store}/indexed/*.parquet' i USING (video_id)
        JOIN '{clips}/*.parquet' c
          ON c.video_id = f.video_id AND c.clip_id BETWEEN i.first_clip_id AND i.first_clip_id + i.n_clips - 1
        GROUP BY f.path ORDER BY f.path"""
    ).fetchall()
    assert [Path(path).name for path, *_ in rows] == ["cat_coffee.mp4", "coins_motorcycle.mp4", "rocket_astronaut.mp4"]
    assert {tuple(numbers) for _, *numbers in rows} == {(2, 384, 384)}
