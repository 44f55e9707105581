// Submits the job of the query string, shows its progress, and then its output.

const query = new URLSearchParams(location.search);
const server = query.get("server") ?? "";
const documentSetId = query.get("documentSetId") ?? query.get("document_set_id") ?? "";
const token = query.get("apiToken") ?? query.get("api_token") ?? "";
const MAX_OUTPUT_LENGTH = 100_000;

const [title, bar, message, again, output] = ["title", "bar", "message", "again", "output"].map((id) =>
  document.getElementById(id),
);

// Encoded as UTF-8, as btoa accepts only Latin-1; the server rejects an invalid token.
const credentials = new TextEncoder().encode(`${token}:x-api-token`);
const headers = { Authorization: `Basic ${btoa(String.fromCharCode(...credentials))}` };

/** Yields the elements of a JSON array while it is being sent. */
async function* readElements(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += value;
    for (let end; (end = findObjectEnd(text)) > 0; text = text.slice(end)) {
      yield JSON.parse(text.slice(text.indexOf("{"), end));
    }
  }
}

/** Returns the index after the first complete object in the text, or 0 if there is none. */
function findObjectEnd(text) {
  let depth = 0;
  let isString = false;
  for (let at = 0; at < text.length; at++) {
    const sign = text[at];
    if (isString) {
      if (sign === "\\") at++;
      else if (sign === '"') isString = false;
    } else if (sign === '"') isString = true;
    else if (sign === "{") depth++;
    else if (sign === "}" && --depth === 0) return at + 1;
  }
  return 0;
}

function show(progress) {
  if (progress.n_ahead_in_queue > 0) {
    bar.removeAttribute("value");
    message.textContent = `${progress.n_ahead_in_queue} before this in the queue`;
    return;
  }
  bar.value = progress.fraction;
  message.textContent = progress.message ?? `${Math.floor(progress.fraction * 100)} %`;
}

function fail(reason) {
  title.textContent = "Failed";
  bar.hidden = true;
  message.textContent = reason;
  message.className = "failed";
  again.hidden = false;
}

async function generate() {
  const response = await fetch("/overview/generate", {
    method: "POST",
    headers,
    body: new URLSearchParams({ server, documentSetId }),
  });
  if (!response.ok) return fail((await response.json()).errors[0].detail);
  let last = null;
  for await (const progress of readElements(response.body)) {
    last = progress;
    show(progress);
  }
  if (last?.error) return fail(last.error);
  if (last !== null && last.returncode === null) return setTimeout(start, 2000); // the stream was interrupted: try again
  await finish();
}

async function finish() {
  const response = await fetch(`/overview/search?${new URLSearchParams({ server, documentSetId })}`, { headers });
  if (!response.ok) return fail((await response.json()).errors[0].detail);
  title.textContent = "Ready";
  bar.value = 1;
  message.textContent = "";
  output.textContent = (await response.text()).slice(0, MAX_OUTPUT_LENGTH);
  output.hidden = false;
}

function start() {
  title.textContent = "Generating";
  bar.hidden = false;
  again.hidden = true;
  message.className = "";
  generate().catch(() => fail("The server does not respond."));
}

again.addEventListener("click", start);
start();
