// Keeps /jobs and /jobs/{id} up to date. The server says everything in words; here they are put in their places, as
// text, never as markup: an element with data-text="message" gets the text of `message`, and so on.
"use strict";

const PATIENCE = 3000; // milliseconds without a connection before anything is said about it
const LATER = 5000;
const RENEWAL = 1000; // between two looks at what was found

const page = document.querySelector("[data-stream]");
const said = document.querySelector("#said");
const lost = document.querySelector("#lost");
const day = new Intl.DateTimeFormat(undefined, { dateStyle: "medium" });
const hour = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });

function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function setAttribute(node, name, value) {
  if (!value) node.removeAttribute(name);
  else if (node.getAttribute(name) !== value) node.setAttribute(name, value);
}

function tellTime(node, at) {
  setAttribute(node, "datetime", at);
  setText(node, at ? inWords(new Date(at)) : "");
}

function inWords(at) {
  const isToday = day.format(at) === day.format(new Date());
  return isToday ? hour.format(at) : `${day.format(at)}, ${hour.format(at)}`;
}

const PLACES = {
  text: (node, value) => setText(node, String(value)),
  if: (node, value) => { node.hidden = !value; },
  href: (node, value) => setAttribute(node, "href", value),
  action: (node, value) => setAttribute(node, "action", value),
  time: tellTime,
};

// What is in a list has values of its own.
function fill(root, values) {
  for (const [place, put] of Object.entries(PLACES)) {
    for (const node of root.querySelectorAll(`[data-${place}]:not([data-list] *)`)) {
      const name = node.dataset[place];
      if (name in values) put(node, values[name] ?? "");
    }
  }
}

function fillJob(root, job) {
  root.dataset.state = job.state;
  fill(root, job);
  for (const bar of root.querySelectorAll("[data-progress]")) {
    if (job.fraction === null) bar.removeAttribute("value");
    else bar.value = job.fraction;
  }
}

// A change may take away what has the focus: it goes to the next best thing in there.
function keepingFocus(root, change) {
  const focused = root.contains(document.activeElement) ? document.activeElement : null;
  change();
  if (!focused) return;
  if (focused.getClientRects().length) focused.focus({ preventScroll: true });
  else root.querySelector(":is(a[href], form:not([hidden]) button)")?.focus({ preventScroll: true });
}

function made(template) {
  return document.querySelector(template).content.firstElementChild.cloneNode(true);
}

function announce(job) {
  setText(said, `${job.kind} ${job.label}: ${job.state_words}`);
}

// The list

function place(job) {
  const known = page.querySelector(`.job[data-id="${job.id}"]`);
  const section = [...page.querySelectorAll("section[data-states]")]
    .find((each) => each.dataset.states.split(" ").includes(job.state));
  const isNew = !known;
  if (isNew && (!section || !takesNew())) return;
  const row = known ?? made("#row");
  row.dataset.id = job.id;
  const isOtherState = row.dataset.state !== job.state;
  keepingFocus(row, () => {
    fillJob(row, job);
    if (section && row.closest("section") !== section) insert(section, row);
  });
  if (isOtherState) announce(job);
  tidy();
}

// On the first page only; ids begin with the time.
function takesNew() {
  return !new URLSearchParams(location.search).has("older");
}

function insert(section, row) {
  const list = section.querySelector("ul");
  const next = [...list.children].find((other) => other.dataset.id < row.dataset.id);
  list.insertBefore(row, next ?? null);
}

function tidy() {
  const sections = [...page.querySelectorAll("section[data-states]")];
  for (const section of sections) section.hidden = !section.querySelector(".job");
  page.querySelector("#nothing").hidden = sections.some((section) => !section.hidden);
}

// One job

function show(news) {
  const root = page.querySelector("#job");
  const isOtherState = root.dataset.state !== news.job.state;
  keepingFocus(root, () => {
    fillJob(root, { ...news.job, has_files: news.files.length > 0, has_attempts: news.attempts.length > 0 });
    replace("files", news.files);
    replace("attempts", news.attempts);
  });
  for (const line of news.lines) page.querySelector("[data-list=lines]").prepend(item("lines", line));
  if (news.job.findings) renew(news.job.findings);
  document.title = `${news.job.tab} · ${news.job.kind} ${news.job.label}`;
  if (isOtherState) announce(news.job);
}

function item(list, values) {
  const node = made(`#${list}-item`);
  if ("level" in values) node.dataset.level = values.level;
  fill(node, values);
  return node;
}

const replaced = {};

function replace(list, items) {
  const content = JSON.stringify(items);
  if (replaced[list] === content) return;
  replaced[list] = content;
  page.querySelector(`[data-list=${list}]`).replaceChildren(...items.map((values) => item(list, values)));
}

// What was found: the server says that there is more, and is asked for that part of the page.

const findings = document.querySelector("#findings");
let wanted = findings?.dataset.mark;
let isRenewing = false;

async function renew(mark) {
  wanted = mark;
  if (isRenewing) return;
  isRenewing = true;
  while (findings.dataset.mark !== wanted) {
    const asked = wanted;
    const fragment = await fetched(findings.dataset.fragment);
    if (fragment === undefined) break; // the next news come with the same mark
    replaceFindings(fragment);
    findings.dataset.mark = asked;
    await new Promise((resolve) => { setTimeout(resolve, RENEWAL); });
  }
  isRenewing = false;
}

async function fetched(url) {
  try {
    const answer = await fetch(url, { redirect: "manual", cache: "no-store" });
    return answer.status === 200 ? await answer.text() : undefined;
  } catch {
    return undefined;
  }
}

// What is as it was stays: a list that somebody has opened, an image that is there, the focus.
function replaceFindings(fragment) {
  const fresh = new DOMParser().parseFromString(fragment, "text/html").body;
  const focused = findings.contains(document.activeElement) ? document.activeElement : null;
  const key = focused?.closest("[data-key]")?.dataset.key;
  for (const old of findings.querySelectorAll("[data-key]")) {
    const node = keyed(fresh, old.dataset.key, old.localName);
    if (!node) continue;
    if (old.querySelector("details[open]")) node.querySelector("details").open = true;
    if (node.isEqualNode(old)) node.replaceWith(old);
  }
  findings.replaceChildren(...fresh.childNodes);
  if (!focused) return;
  const place = findings.contains(focused) ? focused : keyed(findings, key, "figure")?.querySelector("summary");
  (place ?? findings.querySelector("a[href], summary"))?.focus({ preventScroll: true });
}

function keyed(root, key, name) {
  return [...root.querySelectorAll(`${name}[data-key]`)].find((node) => node.dataset.key === key);
}

// The forms

for (const link of document.querySelectorAll("[data-task]")) {
  link.addEventListener("click", () => {
    const url = new URL(link.href);
    const form = document.querySelector("form.form");
    const values = new FormData(form ?? undefined);
    for (const name of form ? ["document-set", "notify-email"] : []) {
      if (values.get(name)) url.searchParams.set(name, values.get(name));
      else url.searchParams.delete(name);
    }
    link.href = url;
  });
}

const files = document.querySelector("input[type=file][data-most]");
files?.addEventListener("change", () => {
  const size = [...files.files].reduce((sum, file) => sum + file.size, 0);
  const isTooMuch = size > Number(files.dataset.most);
  files.setCustomValidity(isTooMuch ? "These files are too large together: send fewer at once." : "");
  if (isTooMuch) files.reportValidity();
});

// The stream

let source;
let last = page?.dataset.after;
let complaint;

function follow() {
  const url = new URL(page.dataset.stream, location.href);
  url.searchParams.set("after", last);
  source = new EventSource(url);
  source.addEventListener("open", isConnected);
  source.addEventListener("error", isLost);
  source.addEventListener("reload", () => location.reload());
  source.addEventListener("message", (event) => {
    last = event.lastEventId;
    const news = JSON.parse(event.data);
    if (news.jobs) news.jobs.forEach(place);
    else show(news);
    if (news.is_over) source.close();
  });
}

function isConnected() {
  clearTimeout(complaint);
  complaint = undefined;
  lost.hidden = true;
}

// The browser comes again by itself, unless the server answered something else than a stream.
function isLost() {
  complaint ??= setTimeout(() => { lost.hidden = false; }, PATIENCE);
  if (source.readyState === EventSource.CLOSED) setTimeout(lookAgain, LATER);
}

async function lookAgain() {
  let status = 503;
  try {
    status = (await fetch(location.href, { method: "HEAD", redirect: "manual", cache: "no-store" })).status;
  } catch {
    // The server cannot be reached: the same as a 503.
  }
  if (status === 200) follow();
  else if (status >= 500) setTimeout(lookAgain, LATER);
  else location.reload(); // signed out, or the job is gone
}

for (const node of document.querySelectorAll("time[datetime]")) {
  if (node.dateTime) tellTime(node, node.dateTime);
}
if (page && !("isOver" in page.dataset)) {
  follow();
  addEventListener("pagehide", () => source.close());
  addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
}
