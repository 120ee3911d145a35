/**
 * The data of each event of a server-sent event stream, as WHATWG's HTML standard defines the format; other fields
 * than `data` are passed over.
 *
 * @param {ReadableStream<Uint8Array>} body
 * @yields {string}
 */
export async function* events(body) {
  let rest = "";
  let data = [];
  for await (const text of chunks(body)) {
    const lines = (rest + text).split(/\r\n|\n|\r(?!$)/);
    rest = lines.pop();
    for (const line of lines) {
      if (line.startsWith("data:")) {
        data.push(line.slice(5).replace(/^ /, ""));
      } else if (line === "" && data.length) {
        yield data.join("\n");
        data = [];
      }
    }
  }
}

/** Not `for await (… of body)`: some browsers' streams cannot be iterated over. */
async function* chunks(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield value;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
