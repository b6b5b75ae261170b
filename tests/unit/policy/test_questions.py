"""When a question to the other workers is over: all have answered, or died."""

from regproxy.policy.questions import Question, QuestionBook

QUESTION = Question(1, 7)


def test_a_question_is_over_with_the_last_answer() -> None:
    """Not before; and an answer of somebody who was not asked changes nothing."""
    book = QuestionBook()
    assert not book.ask(QUESTION, {2, 3})
    assert book.is_open(QUESTION, 2)
    assert not book.answered(QUESTION, 2)
    assert not book.answered(QUESTION, 4)
    assert not book.is_open(QUESTION, 2)
    assert book.answered(QUESTION, 3)
    assert not book.answered(QUESTION, 3)


def test_nobody_is_there() -> None:
    """The question is over at once."""
    assert QuestionBook().ask(QUESTION, set())


def test_the_dead_are_not_waited_for() -> None:
    """A worker that dies has answered nothing; one that has asked is told nothing."""
    book = QuestionBook()
    book.ask(QUESTION, {2, 3})
    book.ask(Question(2, 1), {1, 3})
    assert not book.answered(QUESTION, 3)
    assert book.gone(2) == [QUESTION]
    assert book.gone(1) == []
    assert not book.is_open(Question(2, 1), 3)
