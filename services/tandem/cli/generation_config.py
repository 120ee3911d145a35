"""What a client command asks a gateway to generate."""

from dataclasses import dataclass

from tandem.core.config import option


@dataclass(frozen=True)
class GenerationConfig:
    """Settings of one generation; None leaves a field out of the request, for the server's default."""

    model: str = option("", help="name of the model; empty: the one served")
    max_tokens: int = option(256, help="most tokens to generate")
    min_tokens: int | None = option(None, help="tokens before which nothing ends the text")
    temperature: float | None = option(None, help="0 takes the most likely token; none: the model's own")
    top_p: float | None = option(None, help="keeps the likeliest tokens up to this probability; none: the model's own")
    top_k: int | None = option(None, help="keeps this many of the likeliest tokens, 0 all; none: the model's own")
    min_p: float | None = option(None, help="drops tokens below this share of the likeliest one's probability")
    seed: int | None = option(None, help="same seed, same text; none: drawn at random")
    repetition_penalty: float | None = option(None, help="above 1 makes tokens seen before less likely")
    presence_penalty: float | None = option(None, help="taken off the logits of tokens in the output")
    frequency_penalty: float | None = option(None, help="taken off the logits for every time a token was in the output")
    ignore_eos: bool = option(False, help="goes on past the model's end tokens")
    include_stop: bool = option(False, help="keeps the stop text that ended the output")
    json_schema: str = option("", help="file with a JSON Schema that the text must match; empty: none")
    regex: str = option("", help="regular expression that the whole text must match; empty: none")
    grammar: str = option("", help="file with a grammar in Lark's notation that the text must match; empty: none")
    num_speculative_tokens: int | None = option(None, help="draft tokens a round, 0 for none; none: the server's K")
    cache_salt: str = option("", help="shares cached prompts only with requests of the same salt")
    timeout_seconds: float | None = option(None, help="longest that the whole answer may take")
