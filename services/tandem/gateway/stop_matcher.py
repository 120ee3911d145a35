"""Stop texts in a stream of text: none leaks, and nothing waits that cannot become one."""

from collections.abc import Sequence


class StopMatcher:
    """Looks for the first stop text to be complete, whichever way the text is cut into pieces.

    Each stop text is followed by its own Knuth-Morris-Pratt automaton: its state is the length of the longest end of
    the text so far that the stop text begins with. The longest of these is exactly what has to wait.
    """

    def __init__(self, stops: Sequence[str], include_stop: bool = False) -> None:
        """Starts an empty text.

        Args:
            stops: what to look for; none may be empty.
            include_stop: whether the match itself is released.
        """
        self._stops = [(stop, _failure_table(stop)) for stop in stops]
        self._states = [0] * len(stops)
        self._include_stop = include_stop
        self._held = ""
        self.match: str | None = None

    def push(self, text: str, may_end: bool = True) -> str:
        """Takes more text; returns what may be shown now. After a match, nothing more may.

        Args:
            text: what follows.
            may_end: False: a stop text that is complete in it is no match.
        """
        assert self.match is None, "the text ended with the match"
        buffer = self._held + text
        for position in range(len(self._held), len(buffer)):
            self._advance(buffer[position], may_end)
            if self.match is not None:
                end = position + 1
                self._held = ""
                return buffer[: end if self._include_stop else end - len(self.match)]
        released = len(buffer) - max(self._states, default=0)
        self._held = buffer[released:]
        return buffer[:released]

    def flush(self) -> str:
        """Returns what waited: the text has ended, or something else begins, and it did not become a match."""
        held, self._held = self._held, ""
        self._states = [0] * len(self._stops)
        return held

    def _advance(self, character: str, may_end: bool) -> None:
        for index, (stop, failure) in enumerate(self._stops):
            state = self._states[index]
            while state and stop[state] != character:
                state = failure[state - 1]
            if stop[state] == character:
                state += 1
            if state == len(stop) and not may_end:
                state = failure[state - 1]
            self._states[index] = state
            # Of two that end here the longer one began first.
            if state == len(stop) and (self.match is None or len(stop) > len(self.match)):
                self.match = stop


def _failure_table(stop: str) -> list[int]:
    """Entry i: length of the longest proper beginning of `stop[:i + 1]` that it also ends with."""
    table, length = [0], 0
    for character in stop[1:]:
        while length and stop[length] != character:
            length = table[length - 1]
        if stop[length] == character:
            length += 1
        table.append(length)
    return table
