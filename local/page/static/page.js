// Reads the page anew every few seconds and puts the new content in place of the old; draws charts; copies commands.
"use strict";

const EVERY_MS = 5000;
const WHILE_LOADING_MS = 1000;
const COLORS = ["#3b82c4", "#d97706", "#3f9c6d", "#b4539a", "#7c6cd0", "#c0453b", "#5d8a9b", "#9a8130", "#4aa3a3"];

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const short = (value) =>
  value === null ? "–" : Math.abs(value) >= 10000 ? Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 }).format(value)
    : Number(value.toPrecision(4)).toLocaleString("en");
const clock = (seconds) => new Date(seconds * 1000).toISOString().slice(0, 19).replace("T", " ") + "Z";

// As fine as the range is short: date, time, or time with seconds.
function ticks(chart, seconds) {
  const span = chart.scales.x.max - chart.scales.x.min;
  return seconds.map((at) => (span > 172800 ? clock(at).slice(5, 10) : span > 300 ? clock(at).slice(11, 16) : clock(at).slice(11, 19)));
}

// A bar needs room for its other half.
function timeRange(told) {
  const times = told.data[0];
  const room = times.length < 2 ? 60 : told.bars ? (times[1] - times[0]) * 0.6 : 0;
  return [times[0] - room, times[times.length - 1] + room];
}

function draw(place) {
  const told = JSON.parse(place.dataset.chart);
  const axis = { stroke: css("--quiet"), grid: { stroke: css("--line"), width: 1 }, ticks: { stroke: css("--line"), width: 1 }, font: "11px system-ui, sans-serif" };
  const series = told.series.map((name, number) => ({
    label: name,
    stroke: COLORS[number % COLORS.length],
    fill: told.bars ? COLORS[number % COLORS.length] + "80" : undefined,
    paths: told.bars ? uPlot.paths.bars({ size: [0.8, 60] }) : undefined,
    width: 1.5,
    spanGaps: true,
    points: { show: !told.bars && told.data[0].length < 40, size: 4 },
    value: (_, value) => short(value),
  }));
  const options = {
    width: Math.max(200, place.clientWidth),
    height: 150,
    tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
    series: [{ label: "UTC", value: (_, seconds) => (seconds === null ? "–" : clock(seconds)) }, ...series],
    axes: [{ ...axis, space: 70, values: ticks }, { ...axis, size: 56, values: (_, values) => values.map(short) }],
    scales: { x: { range: () => timeRange(told) }, y: { range: (_, low, high) => [Math.min(0, low ?? 0), high > 0 ? high * 1.08 : 1] } },
    legend: { live: true },
  };
  place.replaceChildren();
  new uPlot(options, told.data, place);
}

function enliven(root) {
  for (const place of root.querySelectorAll("[data-chart]")) draw(place);
  for (const button of root.querySelectorAll(".copy")) button.hidden = false;
}

async function copy(button) {
  const code = button.previousElementSibling;
  try {
    await navigator.clipboard.writeText(code.textContent);
    button.textContent = "copied";
  } catch {
    // Where the browser gives no clipboard, the command is selected, for the keys that copy.
    getSelection().selectAllChildren(code);
    button.textContent = "selected";
  }
}

function replaced(text) {
  const old = document.getElementById("main");
  const fresh = new DOMParser().parseFromString(text, "text/html").getElementById("main");
  if (!fresh) throw new Error("no content");
  for (const open of old.querySelectorAll("details[open][id]")) {
    const same = fresh.querySelector(`details#${CSS.escape(open.id)}`);
    if (same) same.open = true;
  }
  const at = [...old.querySelectorAll("a, button, summary, [tabindex]")].indexOf(document.activeElement);
  const scrolled = [...old.querySelectorAll(".scroll")].map((part) => part.scrollLeft);
  old.replaceWith(fresh);
  enliven(fresh);
  [...fresh.querySelectorAll(".scroll")].forEach((part, number) => { part.scrollLeft = scrolled[number] ?? 0; });
  if (at >= 0) [...fresh.querySelectorAll("a, button, summary, [tabindex]")][at]?.focus({ preventScroll: true });
  return fresh;
}

async function refresh() {
  const status = document.getElementById("status");
  const main = document.getElementById("main");
  const isBusy = document.hidden || !getSelection().isCollapsed || main.querySelector(".u-over:hover");
  let loading = main.dataset.loading === "yes";
  if (!isBusy) {
    try {
      const answer = await fetch(location.href, { headers: { accept: "text/html" } });
      if (answer.redirected && new URL(answer.url).pathname === "/sign-in") { location.href = answer.url; return; }
      loading = replaced(await answer.text()).dataset.loading === "yes";
      status.textContent = "";
      status.className = "quiet";
    } catch {
      status.textContent = "The page's server does not answer: what is shown is old. Start it again: local/tidemark page";
      status.className = "lost";
    }
  }
  setTimeout(refresh, loading ? WHILE_LOADING_MS : EVERY_MS);
}

document.addEventListener("click", (event) => {
  if (event.target.matches(".copy")) copy(event.target);
});
let width = innerWidth;
addEventListener("resize", () => {
  if (innerWidth !== width) { width = innerWidth; enliven(document.getElementById("main")); }
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => enliven(document.getElementById("main")));
enliven(document.getElementById("main"));
setTimeout(refresh, document.getElementById("main").dataset.loading === "yes" ? WHILE_LOADING_MS : EVERY_MS);
