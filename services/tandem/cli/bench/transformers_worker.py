"""The process in which transformers generates: one line of JSON asks, one answers; it ends with its stdin.

The first line names the pair; every further one asks for a text. Greedy, batch 1.
"""

import importlib
import json
import os
import sys
import time
from typing import Any

import torch

transformers: Any = importlib.import_module("transformers")  # half of it has no types


class ArrivalTimes:
    """A streamer that notes when tokens come, and how many."""

    def __init__(self) -> None:
        """Starts the clock."""
        self._started_at = time.perf_counter()
        self._has_prompt = False
        self.arrivals: list[tuple[float, int]] = []

    def put(self, token_ids: torch.Tensor) -> None:  # [1, N] or [N]
        """Given the prompt first, then what each forward pass brought."""
        if self._has_prompt:
            self.arrivals.append((time.perf_counter() - self._started_at, token_ids.numel()))
        self._has_prompt = True

    def end(self) -> None:
        """Nothing is left to do."""


class Pair:
    """Target and assistant."""

    def __init__(self, settings: dict[str, Any]) -> None:
        """Loads both."""
        torch.set_num_threads(settings["threads"])
        self._device = torch.device(settings["device"])
        make = _random_model if settings["random_weights"] else _load_model
        self._target, self._assistant = (
            make(settings[name], getattr(torch, settings["dtype"]), self._device) for name in ("target", "draft_model")
        )
        # No end tokens: every text gets its full length, as from us.
        self._target.generation_config = transformers.GenerationConfig(pad_token_id=0)
        self._assistant.generation_config = transformers.GenerationConfig(
            num_assistant_tokens=settings["num_speculative_tokens"],
            num_assistant_tokens_schedule="constant",
            assistant_confidence_threshold=0.0,
        )

    def generate(self, question: dict[str, Any]) -> dict[str, Any]:
        """One text, with the times of its tokens."""
        prompt = torch.tensor([question["prompt_token_ids"]], device=self._device)
        times = ArrivalTimes()
        output = self._target.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=question["max_tokens"],
            do_sample=False,
            streamer=times,
            assistant_model=self._assistant if question["is_assisted"] else None,
        )
        return {"token_ids": output[0, prompt.shape[1] :].tolist(), "arrivals": times.arrivals}


def _load_model(folder: str, dtype: torch.dtype, device: torch.device) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).to(device)


def _random_model(folder: str, dtype: torch.dtype, device: torch.device) -> Any:
    """The text model that a config.json describes, made where it will be."""
    config = transformers.AutoConfig.from_pretrained(folder)
    is_multimodal = hasattr(config, "vision_config")
    with device:
        return transformers.AutoModelForCausalLM.from_config(
            config.text_config if is_multimodal else config, dtype=dtype
        )


def main() -> None:
    """Answers until nobody asks any more."""
    # Answers have stdout for themselves; whatever a library prints goes elsewhere.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    pair = None
    for line in sys.stdin:
        answer: dict[str, Any] = {}
        try:
            if pair is None:
                pair = Pair(json.loads(line))
            else:
                answer = pair.generate(json.loads(line))
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
