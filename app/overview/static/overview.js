// Starts the run that the query string names, shows how far it is, and then what it has made.

const asked = new URLSearchParams(location.search);
const server = asked.get("server") ?? "";
const documentSetId = asked.get("documentSetId") ?? asked.get("document_set_id") ?? "";
const token = asked.get("apiToken") ?? asked.get("api_token") ?? "";
const LONGEST_SHOWN = 100_000;

const [title, bar, message, again, made] = ["title", "bar", "message", "again", "made"].map((id) =>
  document.getElementById(id),
);

// As UTF-8, whatever it is: btoa takes no other letters, and what no token is, the server says.
const credentials = new TextEncoder().encode(`${token}:x-api-token`);
const headers = { Authorization: `Basic ${btoa(String.fromCharCode(...credentials))}` };

/** Yields the elements of a JSON array while it is being sent. */
async function* elements(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += value;
    for (let end; (end = endOfObject(text)) > 0; text = text.slice(end)) {
      yield JSON.parse(text.slice(text.indexOf("{"), end));
    }
  }
}

/** Where the first whole object of a text ends, 0 where none does. */
function endOfObject(text) {
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

function fail(words) {
  title.textContent = "It did not work";
  bar.hidden = true;
  message.textContent = words;
  message.className = "failed";
  again.hidden = false;
}

async function generate() {
  const answer = await fetch("/overview/generate", {
    method: "POST",
    headers,
    body: new URLSearchParams({ server, documentSetId }),
  });
  if (!answer.ok) return fail((await answer.json()).errors[0].detail);
  let last = null;
  for await (const progress of elements(answer.body)) {
    last = progress;
    show(progress);
  }
  if (last?.error) return fail(last.error);
  if (last !== null && last.returncode === null) return setTimeout(start, 2000); // cut off: come back
  await finish();
}

async function finish() {
  const answer = await fetch(`/overview/search?${new URLSearchParams({ server, documentSetId })}`, { headers });
  if (!answer.ok) return fail((await answer.json()).errors[0].detail);
  title.textContent = "Ready";
  bar.value = 1;
  message.textContent = "";
  made.textContent = (await answer.text()).slice(0, LONGEST_SHOWN);
  made.hidden = false;
}

function start() {
  title.textContent = "Generating";
  bar.hidden = false;
  again.hidden = true;
  message.className = "";
  generate().catch(() => fail("The server does not answer."));
}

again.addEventListener("click", start);
start();
