from tandem.cli.figures import Figures


def test_acceptance_length_counts_the_targets_own_token():
    figures = Figures(
        num_tokens=41,
        num_rounds=10,
        num_draft_tokens=40,
        num_accepted_tokens=30,
        seconds=2.0,
        first_token_seconds=0.05,
    )
    assert figures.acceptance_length == 4.0
    assert figures.line() == (
        "rounds 10, drafted 40, accepted 30, acceptance length 4.00, tokens 41, 20.5 tokens/s, first token after 50 ms"
    )


def test_an_answer_without_rounds_has_no_acceptance_length():
    figures = Figures(1, 0, 0, 0, 0.0, 0.0)
    assert figures.acceptance_length is None and "acceptance length -," in figures.line()
