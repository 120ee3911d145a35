/** Prompts to begin with. */
export const EXAMPLES = [
  {
    title: "Python: a class goes on",
    isChat: false,
    prompt: `class LineReader:
    """Reads lines from a stream, one at a time."""

    def __init__(self, stream, encoding="utf-8"):
        self.stream = stream
        self.encoding = encoding

    def read_line(self):`,
  },
  {
    title: "Python: a test case",
    isChat: false,
    prompt: `import unittest


class TestQueue(unittest.TestCase):
    def setUp(self):
        self.queue = Queue(maxsize=4)

    def test_put_and_get(self):`,
  },
  {
    title: "Chat: explain speculative decoding",
    isChat: true,
    prompt: "Explain speculative decoding to someone who knows how a language model writes. Four sentences.",
  },
  {
    title: "Chat: a table",
    isChat: true,
    prompt: "List the planets of the solar system with their diameters in kilometres, as a Markdown table.",
  },
];
