"""Training of the demo pair: a small Gemma 4 target and its MTP drafter, on Python source code."""
