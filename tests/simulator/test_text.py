from hypothesis import given
from hypothesis import strategies as st

from webapp.simulator.answers import load_book
from webapp.simulator.text import estimate_tokens, split_tokens, tokens_of

ENGLISH = load_book().fallback.text


@given(st.text())
def test_joining_the_tokens_gives_the_text(text: str) -> None:
    tokens = list(tokens_of(text))
    assert "".join(tokens) == text
    assert all(tokens)


@given(st.text(alphabet=" \n\t.,a0_é東😀", max_size=40))
def test_spaces_and_scripts_in_any_order_are_kept(text: str) -> None:
    assert "".join(tokens_of(text)) == text


def test_english_has_about_four_characters_a_token() -> None:
    tokens = split_tokens(ENGLISH)
    assert 3.7 < len(ENGLISH) / len(tokens) < 4.7
    assert max(map(len, tokens)) < 12


def test_the_space_stays_with_the_word_that_follows() -> None:
    assert split_tokens("Time to first token.") == ("Time", " to", " first", " token", ".")


def test_a_text_without_spaces_is_split_as_well() -> None:
    assert len(split_tokens("a" * 100)) > 10
    assert len(split_tokens("待つ時間は短いほどよい")) >= 5


def test_an_empty_prompt_still_has_a_token() -> None:
    assert estimate_tokens(0) == 1
    assert estimate_tokens(400) == 100
    assert estimate_tokens(401) == 101
