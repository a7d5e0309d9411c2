"""bench.peers: a wrong answer is seen, and the loop and the pipeline give the right one."""

import pyarrow as pa
import pytest

from bench.peers import __main__ as peers
from bench.peers.peers import PEERS
from bench.peers.question import WrongAnswerError, exact_answer, make_bids, require_right
from bench.peers.turns import Turn

BIDS = 3_000


@pytest.fixture(scope="module")
def exact() -> pa.Table:
    return exact_answer(make_bids(BIDS))


def test_the_exact_answer_is_right_in_any_order(exact: pa.Table) -> None:
    require_right(exact.sort_by([("auction", "descending")]), exact)


def test_a_count_that_is_one_too_high_is_seen(exact: pa.Table) -> None:
    first = exact.slice(0, 1)
    wrong = first.set_column(2, "bids", pa.array([first["bids"][0].as_py() + 1]))
    with pytest.raises(WrongAnswerError, match=rf"1 with another count, as auction {first['auction'][0]} "):
        require_right(pa.concat_tables([wrong, exact.slice(1)]), exact)


def test_a_count_that_is_missing_too_many_or_repeated_is_seen(exact: pa.Table) -> None:
    with pytest.raises(WrongAnswerError, match="1 missing"):
        require_right(exact.slice(1), exact)
    with pytest.raises(WrongAnswerError, match="1 not in the topic"):
        require_right(exact, exact.slice(1))
    with pytest.raises(WrongAnswerError, match="1 repeated"):
        require_right(pa.concat_tables([exact, exact.slice(0, 1)]), exact)


@pytest.mark.exhaustive
@pytest.mark.slow
def test_the_loop_and_the_pipeline_give_the_exact_answer() -> None:
    names = ["plain-loop", "tidemark"]
    turns: list[Turn] = []
    assert peers.measure([PEERS[name] for name in names], BIDS, rounds=1, limit_s=120, turns=turns) == 0
    assert [turn.peer for turn in turns] == names
    for turn in turns:
        assert 0 < turn.first_record < turn.last_answer <= turn.exited + 1
        assert turn.first_answer <= turn.last_answer
        assert turn.cpu_seconds > 0
        assert turn.peak_bytes > 0
