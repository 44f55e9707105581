// Keeps /jobs and /jobs/{id} up to date. The server sends formatted values, which are set as text, never as markup: an
// element with data-text="message" gets the value `message`, and so on.
"use strict";

const NOTICE_DELAY_MS = 3000; // without a connection, before a notice is shown
const RETRY_DELAY_MS = 5000;
const FINDINGS_INTERVAL_MS = 1000; // minimum between two requests for results

const page = document.querySelector("[data-stream]");
const announcement = document.querySelector("#announcement");
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

function showTime(node, at) {
  setAttribute(node, "datetime", at);
  setText(node, at ? formatTime(new Date(at)) : "");
}

function formatTime(at) {
  const isToday = day.format(at) === day.format(new Date());
  return isToday ? hour.format(at) : `${day.format(at)}, ${hour.format(at)}`;
}

const SETTERS = {
  text: (node, value) => setText(node, String(value)),
  if: (node, value) => { node.hidden = !value; },
  href: (node, value) => setAttribute(node, "href", value),
  action: (node, value) => setAttribute(node, "action", value),
  time: showTime,
};

// Elements in a list are left out: list items have their own values.
function fill(root, values) {
  for (const [attribute, set] of Object.entries(SETTERS)) {
    for (const node of root.querySelectorAll(`[data-${attribute}]:not([data-list] *)`)) {
      const name = node.dataset[attribute];
      if (name in values) set(node, values[name] ?? "");
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

// A change may hide the focused element: then focus the first link or button in the same root.
function keepFocus(root, change) {
  const focused = root.contains(document.activeElement) ? document.activeElement : null;
  change();
  if (!focused) return;
  if (focused.getClientRects().length) focused.focus({ preventScroll: true });
  else root.querySelector(":is(a[href], form:not([hidden]) button)")?.focus({ preventScroll: true });
}

function cloneTemplate(template) {
  return document.querySelector(template).content.firstElementChild.cloneNode(true);
}

function announce(job) {
  setText(announcement, `${job.kind} ${job.label}: ${job.state_label}`);
}

// The list

function placeJob(job) {
  const known = page.querySelector(`.job[data-id="${job.id}"]`);
  const section = [...page.querySelectorAll("section[data-states]")]
    .find((each) => each.dataset.states.split(" ").includes(job.state));
  const isNew = !known;
  if (isNew && (!section || !isFirstPage())) return;
  const row = known ?? cloneTemplate("#row");
  row.dataset.id = job.id;
  const isOtherState = row.dataset.state !== job.state;
  keepFocus(row, () => {
    fillJob(row, job);
    if (section && row.closest("section") !== section) insertRow(section, row);
  });
  if (isOtherState) announce(job);
  hideEmptySections();
}

// New jobs appear on the first page only; rows are sorted by id, which begins with the time.
function isFirstPage() {
  return !new URLSearchParams(location.search).has("older");
}

function insertRow(section, row) {
  const list = section.querySelector("ul");
  const next = [...list.children].find((other) => other.dataset.id < row.dataset.id);
  list.insertBefore(row, next ?? null);
}

function hideEmptySections() {
  const sections = [...page.querySelectorAll("section[data-states]")];
  for (const section of sections) section.hidden = !section.querySelector(".job");
  page.querySelector("#nothing").hidden = sections.some((section) => !section.hidden);
}

// One job

function showJob(update) {
  const root = page.querySelector("#job");
  const isOtherState = root.dataset.state !== update.job.state;
  keepFocus(root, () => {
    fillJob(root, { ...update.job, has_files: update.files.length > 0, has_attempts: update.attempts.length > 0 });
    replaceList("files", update.files);
    replaceList("attempts", update.attempts);
  });
  for (const line of update.lines) page.querySelector("[data-list=lines]").prepend(buildItem("lines", line));
  if (update.job.findings) refreshFindings(update.job.findings);
  document.title = `${update.job.tab} · ${update.job.kind} ${update.job.label}`;
  if (isOtherState) announce(update.job);
}

function buildItem(list, values) {
  const node = cloneTemplate(`#${list}-item`);
  if ("level" in values) node.dataset.level = values.level;
  fill(node, values);
  return node;
}

const listContents = {};

function replaceList(list, items) {
  const content = JSON.stringify(items);
  if (listContents[list] === content) return;
  listContents[list] = content;
  page.querySelector(`[data-list=${list}]`).replaceChildren(...items.map((values) => buildItem(list, values)));
}

// Results: when their digest in an event changes, that part of the page is requested again.

const findings = document.querySelector("#findings");
let requestedMark = findings?.dataset.mark;
let isRefreshing = false;

async function refreshFindings(mark) {
  requestedMark = mark;
  if (isRefreshing) return;
  isRefreshing = true;
  while (findings.dataset.mark !== requestedMark) {
    const nextMark = requestedMark;
    const fragment = await fetchText(findings.dataset.fragment);
    if (fragment === undefined) break; // the next event tries again with the same mark
    replaceFindings(fragment);
    findings.dataset.mark = nextMark;
    await new Promise((resolve) => { setTimeout(resolve, FINDINGS_INTERVAL_MS); });
  }
  isRefreshing = false;
}

async function fetchText(url) {
  try {
    const response = await fetch(url, { redirect: "manual", cache: "no-store" });
    return response.status === 200 ? await response.text() : undefined;
  } catch {
    return undefined;
  }
}

// Keeps elements that are unchanged: opened lists, loaded images, the focus.
function replaceFindings(fragment) {
  const fresh = new DOMParser().parseFromString(fragment, "text/html").body;
  const focused = findings.contains(document.activeElement) ? document.activeElement : null;
  const key = focused?.closest("[data-key]")?.dataset.key;
  for (const old of findings.querySelectorAll("[data-key]")) {
    const node = findByKey(fresh, old.dataset.key, old.localName);
    if (!node) continue;
    if (old.querySelector("details[open]")) node.querySelector("details").open = true;
    if (node.isEqualNode(old)) node.replaceWith(old);
  }
  findings.replaceChildren(...fresh.childNodes);
  if (!focused) return;
  const place = findings.contains(focused) ? focused : findByKey(findings, key, "figure")?.querySelector("summary");
  (place ?? findings.querySelector("a[href], summary"))?.focus({ preventScroll: true });
}

function findByKey(root, key, name) {
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

const files = document.querySelector("input[type=file][data-max-bytes]");
files?.addEventListener("change", () => {
  const size = [...files.files].reduce((sum, file) => sum + file.size, 0);
  const isTooLarge = size > Number(files.dataset.maxBytes);
  files.setCustomValidity(isTooLarge ? "These files are too large together: choose fewer." : "");
  if (isTooLarge) files.reportValidity();
});

// The stream

let source;
let lastEventId = page?.dataset.after;
let noticeTimer;

function follow() {
  const url = new URL(page.dataset.stream, location.href);
  url.searchParams.set("after", lastEventId);
  source = new EventSource(url);
  source.addEventListener("open", handleOpen);
  source.addEventListener("error", handleError);
  source.addEventListener("reload", () => location.reload());
  source.addEventListener("message", (event) => {
    lastEventId = event.lastEventId;
    const update = JSON.parse(event.data);
    if (update.jobs) update.jobs.forEach(placeJob);
    else showJob(update);
    if (update.is_over) source.close();
  });
}

function handleOpen() {
  clearTimeout(noticeTimer);
  noticeTimer = undefined;
  lost.hidden = true;
}

// The browser reconnects by itself, unless the response was not a stream.
function handleError() {
  noticeTimer ??= setTimeout(() => { lost.hidden = false; }, NOTICE_DELAY_MS);
  if (source.readyState === EventSource.CLOSED) setTimeout(checkPage, RETRY_DELAY_MS);
}

async function checkPage() {
  let status = 503;
  try {
    status = (await fetch(location.href, { method: "HEAD", redirect: "manual", cache: "no-store" })).status;
  } catch {
    // The server cannot be reached: the same as a 503.
  }
  if (status === 200) follow();
  else if (status >= 500) setTimeout(checkPage, RETRY_DELAY_MS);
  else location.reload(); // signed out, or the job is gone
}

for (const node of document.querySelectorAll("time[datetime]")) {
  if (node.dateTime) showTime(node, node.dateTime);
}
if (page && !("isOver" in page.dataset)) {
  follow();
  addEventListener("pagehide", () => source.close());
  addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
}
