"""Where the queries of an MTP drafter stand, which engines do not agree on."""

AT_P = "p"
BEFORE_P = "p-1"
# By the name that settings have for it: the distance from P, the position of the last token. Keys end at P-1.
DRAFT_POSITIONS = {AT_P: 0, BEFORE_P: -1}
