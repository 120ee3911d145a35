"""The drafter: proposes token ids from what a verifier shares, in a process of its own."""
