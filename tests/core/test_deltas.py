"""The columns of deltas behave like the list of deltas that they stand for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webapp.core.deltas import KINDS, Delta, Deltas

DELTAS = st.lists(
    st.builds(
        Delta,
        st.integers(-(2**62), 2**62),
        st.sampled_from(KINDS),
        st.text(),
        st.none() | st.integers(0, 2**31 - 1),
    )
)


@given(DELTAS)
def test_what_was_added_comes_back_in_order(deltas: list[Delta]) -> None:
    columns = Deltas(deltas)
    assert list(columns) == deltas
    assert columns == deltas
    assert len(columns) == len(deltas)
    assert bool(columns) == bool(deltas)
    assert columns.text == "".join(delta.text for delta in deltas)


@given(DELTAS, st.slices(20))
def test_slices_and_places_are_those_of_a_list(deltas: list[Delta], part: slice) -> None:
    columns = Deltas(deltas)
    assert columns[part] == deltas[part]
    assert [columns[-1 - place] for place in range(len(deltas))] == deltas[::-1]


@pytest.mark.parametrize("place", [2, -3])
def test_a_place_that_does_not_exist_is_an_index_error(place: int) -> None:
    with pytest.raises(IndexError):
        Deltas([Delta(1, "content", "a"), Delta(2, "content", "b")])[place]


def test_half_a_surrogate_pair_is_kept_as_it_came() -> None:
    assert Deltas([Delta(1, "content", "\ud83d"), Delta(2, "content", "\ude00")])[0].text == "\ud83d"


def test_an_absurd_token_count_does_not_break_the_columns() -> None:
    assert Deltas([Delta(1, "content", "a", 2**70)])[0].tokens == 2**31 - 1
