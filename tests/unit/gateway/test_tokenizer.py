import pytest

from tandem.core.errors import ConfigError
from tandem.gateway.tokenizer import TextTokenizer
from tests.unit.gateway.conftest import SPECIALS, byte_level_tokenizer, save_checkpoint


def test_ordinary_text_is_encoded_as_ever(tokenizer, whole):
    for text in ("hello world", "  spaces \n\n", "中文 😀 é", ""):
        assert tokenizer.encode(text) == whole.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("special", SPECIALS)
def test_special_tokens_in_text_are_text(tokenizer, special):
    for text in (special, f"a{special}b", special * 3, f" {special} "):
        ids = tokenizer.encode(text)
        assert not set(ids) & tokenizer.special_token_ids
        assert tokenizer.decode(ids) == text


def test_settings_of_training_do_not_cut_or_pad(tmp_path):
    library = byte_level_tokenizer()
    library.enable_truncation(max_length=3)
    library.enable_padding(length=50)
    tokenizer = TextTokenizer.load(save_checkpoint(tmp_path / "target", library))
    assert tokenizer.decode(tokenizer.encode("the quick brown fox")) == "the quick brown fox"


def test_folders_that_do_not_hold_a_tokenizer(tmp_path):
    def refused(match):
        with pytest.raises(ConfigError, match=match):
            TextTokenizer.load(tmp_path / "target")

    refused("does not exist")
    folder = save_checkpoint(tmp_path / "target", byte_level_tokenizer())
    settings = folder / "tokenizer_config.json"
    settings.write_text("{}")
    refused("needs a bos_token")
    settings.write_text('{"bos_token": "<nobody>"}')
    refused("has no token '<nobody>'")
    settings.write_text("[]")
    refused("not a JSON object")
    settings.write_text("{")
    refused("not JSON")
    settings.write_text('{"bos_token": {"content": "<bos>"}}')
    assert TextTokenizer.load(folder).bos_token_id == 2
    (folder / "tokenizer.json").write_text("{}")
    refused("not a tokenizer")
