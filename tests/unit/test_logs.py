"""Session logs: columns, Arrow, Parquet."""

from pathlib import Path

import numpy as np
import pytest

import virtualtb_fast as vtb
from virtualtb_fast import _core
from virtualtb_fast.logs import COLUMNS, OUTCOMES, SessionLog, read_log
from virtualtb_fast.rollout import rollout


@pytest.fixture(scope="module")
def log(shop: vtb.Simulator) -> SessionLog:
    return rollout(shop, "gaussian:0.5", sessions=_core.BLOCK + 100, seed=6).log


def test_columns_have_their_types_and_shapes(log: SessionLog) -> None:
    rows = len(log)
    expected = {
        "session": (np.int64, (rows,)),
        "page": (np.int16, (rows,)),
        "day": (np.int16, (rows,)),
        "customer": (np.uint8, (rows, 3)),
        "action": (np.float32, (rows, 6)),
        "action_logp": (np.float32, (rows,)),
        "clicks": (np.uint8, (rows,)),
        "second": (np.uint8, (rows,)),
        "outcome": (np.uint8, (rows,)),
        "units": (np.uint16, (rows,)),
    }
    assert {name: (log[name].dtype, log[name].shape) for name in log} == expected
    assert tuple(expected) == COLUMNS == log.keys()
    assert OUTCOMES == ("turn", "buy", "leave", "max_pages")
    assert dict(log).keys() == expected.keys()


def test_columns_say_what_they_should(log: SessionLog, shop: vtb.Simulator) -> None:
    offsets = log.session_offsets()
    assert len(offsets) == _core.BLOCK + 101
    assert np.array_equal(np.flatnonzero(np.diff(log["session"], prepend=-1)), offsets[:-1])
    assert np.array_equal(log["page"][offsets[:-1]], np.zeros(len(offsets) - 1))
    last = np.zeros(len(log), bool)
    last[offsets[1:] - 1] = True
    assert np.array_equal(log["outcome"], np.where(last, 2, 0))
    assert np.array_equal(log["units"], log["second"])
    sizes = [field.size for field in shop.schema.customer]
    assert (log["customer"].max(0) < sizes).all()
    # A customer stays the same within a session, and differs between them.
    assert np.array_equal(log["customer"], log["customer"][offsets[:-1]][log["session"]])
    assert len(np.unique(log["customer"], axis=0)) > 5
    assert not log["day"].any()


def test_columns_are_views_that_nobody_can_write(shop: vtb.Simulator) -> None:
    log = rollout(shop, sessions=50).log
    view = log["action"]
    assert view.ctypes.data == SessionLog(log._native)["action"].ctypes.data
    assert not view.flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 1
    with pytest.raises(ValueError, match="WRITEABLE"):
        view.flags.writeable = True
    kept = view.copy()
    del log
    assert np.array_equal(view, kept)


def test_unknown_columns_are_named(log: SessionLog) -> None:
    for name in ("click", "value", 0, None):
        with pytest.raises(vtb.InvalidArgumentError, match="expected one of session, page"):
            log[name]  # type: ignore[index]


def test_observations_are_what_the_policy_saw(shop: vtb.Simulator) -> None:
    seen = {}

    def policy(observation: np.ndarray, session: np.ndarray, page: np.ndarray) -> np.ndarray:
        for row, key in zip(observation, zip(session, page, strict=True), strict=True):
            seen[key] = row
        return np.zeros((len(page), 6))

    log = rollout(shop, policy, sessions=60).log
    want = [seen[key] for key in zip(log["session"], log["page"], strict=True)]
    observations = log.observations()
    assert observations.dtype == np.float32
    assert np.array_equal(observations, want)
    assert np.array_equal(log.observations(slice(7, 31)), want[7:31])


def test_metadata_tells_where_the_log_came_from(log: SessionLog, shop: vtb.Simulator) -> None:
    about = log.metadata
    assert about["simulator_digest"] == shop.digest
    assert (about["policy"], about["seed"], about["complete"]) == ("gaussian:0.5", "6", "true")
    assert int(about["rows"]) == len(log)
    assert int(about["sessions"]) == _core.BLOCK + 100
    assert int(about["stream_version"]) == _core.STREAM_VERSION
    assert log.schema == shop.schema
    assert log.complete
    assert "policy gaussian:0.5" in repr(log)


def test_files_come_back(log: SessionLog, tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    log.write(path)
    back = read_log(path)
    assert back.digest() == log.digest() == _core.Log.digest_file(str(path))
    assert back.metadata == log.metadata
    for name in COLUMNS:
        assert np.array_equal(back[name], log[name]), name
    with pytest.raises(vtb.OutputError, match="exists"):
        log.write(path)
    log.write(path, overwrite=True)
    back.write(tmp_path / "again.parquet")
    assert (tmp_path / "again.parquet").read_bytes() == path.read_bytes()


def test_other_files_are_refused(log: SessionLog, tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    for content in (b"", b"PAR1", b"PAR1" * 100, b"no parquet at all" * 100):
        path.write_bytes(content)
        with pytest.raises(vtb.FileFormatError, match="expected a Parquet file"):
            read_log(path)
    with pytest.raises(vtb.FileFormatError, match="directory"):
        read_log(tmp_path)
    with pytest.raises(vtb.OutputError, match="missing"):
        read_log(tmp_path / "missing.parquet")


def test_cuts_are_refused(shop: vtb.Simulator, tmp_path: Path) -> None:
    """Of a small log every seventh length, and each within its footer's end, through Python."""
    path = tmp_path / "log.parquet"
    rollout(shop, "gaussian:0.5", sessions=20, seed=6).log.write(path)
    good = path.read_bytes()
    assert len(read_log(path)) > 20
    for length in {*range(0, len(good), 7), *range(len(good) - 512, len(good))}:
        path.write_bytes(good[:length])
        with pytest.raises(vtb.FileFormatError):
            read_log(path)
    path.write_bytes(good)
    assert len(read_log(path)) > 20


def test_arrow_shares_memory(log: SessionLog) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    table = log.to_arrow()
    table.validate(full=True)
    (session,) = table["session"].chunks
    assert session.buffers()[1].address == log["session"].ctypes.data
    (action,) = table["action"].chunks
    assert action.flatten().buffers()[1].address == log["action"].ctypes.data
    assert table.schema.field("action").type == pyarrow.list_(
        pyarrow.field("item", pyarrow.float32(), nullable=False), 6
    )
    assert set(table["outcome"].to_pylist()) == {"turn", "leave"}
    assert table["value"].null_count == len(log)
    assert table.schema.metadata[b"seed"] == b"6"
    assert pyarrow.schema(log) == table.schema
    # The table outlives the log.
    table = rollout(_shop_of(log), sessions=20).to_arrow()
    table.validate(full=True)


def _shop_of(log: SessionLog) -> vtb.Simulator:
    """Any simulator will do: one of random weights with the log's schema."""
    rng = np.random.default_rng(0)
    shapes = vtb.schema.V0_CONFIG.shapes(log.schema)
    tensors = {name: rng.normal(0, 0.1, shape).astype(np.float32) for name, shape in shapes.items()}
    return vtb.Simulator.from_tensors(tensors, name="any", schema=log.schema)


def test_other_readers_see_the_same_rows(log: SessionLog, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "log.parquet"
    log.write(path)
    table = parquet.read_table(path)
    table.validate(full=True)
    assert table.schema.equals(log.to_arrow().schema, check_metadata=True)
    for name in COLUMNS:
        column = table[name].combine_chunks()
        if name == "outcome":
            codes = [OUTCOMES.index(value) for value in column.to_pylist()]
            assert np.array_equal(codes, log[name])
            continue
        values = column.flatten() if log[name].ndim == 2 else column
        assert np.array_equal(values.to_numpy().reshape(log[name].shape), log[name]), name
    file = parquet.ParquetFile(path)
    assert file.num_row_groups == 2
    assert file.metadata.row_group(0).column(0).statistics.max == _core.BLOCK - 1


def test_a_log_that_was_altered_is_refused_whoever_reads_it(
    shop: vtb.Simulator, tmp_path: Path
) -> None:
    pytest.importorskip("pyarrow", reason="people's logs are read with it")
    from virtualtb_fast.records import check_log

    path = tmp_path / "log.parquet"
    vtb.rollout(shop, "random", sessions=300, seed=1, out=path)
    assert _core.Log.check_file(str(path))
    assert check_log(path).sessions == 300
    data = path.read_bytes()
    for at in range(4, len(data) // 2, len(data) // 20):
        changed = bytearray(data)
        changed[at] ^= 16
        path.write_bytes(changed)
        for read in (read_log, check_log):
            with pytest.raises(vtb.FileFormatError, match="was altered"):
                read(path)


def test_a_log_of_ours_without_its_checksum_is_refused(shop: vtb.Simulator, tmp_path: Path) -> None:
    """Rows may be changed where the checksum is not found any more; other tools leave it out."""
    parquet = pytest.importorskip("pyarrow.parquet", reason="people's logs are read with it")
    from virtualtb_fast.records import check_log, draft_schema

    path, again = tmp_path / "log.parquet", tmp_path / "again.parquet"
    vtb.rollout(shop, "random", sessions=300, seed=1, out=path)
    data = path.read_bytes()
    key = data.rindex(b"checksum")
    for at in range(key, key + len("checksum")):
        changed = bytearray(data)
        changed[at] ^= 1
        changed[len(data) // 3] ^= 16
        path.write_bytes(changed)
        assert not _core.Log.check_file(str(path))
        for read in (read_log, check_log, draft_schema):
            with pytest.raises(vtb.FileFormatError, match=r"expected .*checksum.* got"):
                read(path)
    # What says that the log is one of this package does not decide it.
    changed = data.replace(b"virtualtb_fast.sessions", b"virtualtb_fast.sessionz")
    assert changed != data
    path.write_bytes(changed)
    with pytest.raises(vtb.FileFormatError, match="was altered"):
        draft_schema(path)
    path.write_bytes(data)
    parquet.write_table(parquet.read_table(path), again)
    assert not _core.Log.check_file(str(again))
    assert check_log(again).sessions == 300
