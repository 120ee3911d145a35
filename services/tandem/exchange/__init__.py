"""What verifier and drafter share: its shape, where each part lies, and the memory behind it."""
