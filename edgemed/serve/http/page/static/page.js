// The page moves by what the server says each second. When it says nothing for 2.5 s, the page says so: a frozen picture
// that looks alive is the worst that can happen beside a patient.
import { chart } from "./chart.js";

const QUIET_MS = 2500;
const WORDS = { ready: "Ready", degraded: "Ready, with a reservation", "not-ready": "Not analysing" };
const $ = (id) => document.getElementById(id);
const put = (id, text) => { const place = $(id); if (place && place.textContent !== String(text)) place.textContent = text; };

let heard = performance.now();
let live = new Map();

function age(seconds) {
  for (const [size, unit] of [[86400, "d"], [3600, "h"], [60, "min"]]) if (seconds >= 2 * size) return `${Math.round(seconds / size)} ${unit}`;
  return `${Math.round(seconds)} s`;
}

function told(now) {
  heard = performance.now();
  const why = now.findings.length ? now.findings[0].reason : "";
  document.body.dataset.light = now.light;
  put("light-word", WORDS[now.light]);
  put("light-why", why);
  const state = document.querySelector(".state");
  if (state) state.dataset.light = now.light;
  put("lamp-word", WORDS[now.light]);
  put("lamp-why", why || "The last golden inference was right.");
  put("waiting-tasks", now.waiting.tasks);
  put("waiting-oldest", now.waiting.tasks ? age(now.waiting.oldest_s) : "none");
  put("waiting-deliveries", now.waiting.deliveries);
  for (const [end, count] of Object.entries(now.ended)) put(`ended-${end}`, count);
  if ($("alarms")) alarms(now.alarms);
  for (const channel of now.live) live.get(channel.name)?.told(channel);
}

function alarms(list) {
  const made = document.createElement("ul");
  made.className = "alarms";
  for (const alarm of list) {
    const row = made.appendChild(document.createElement("li"));
    row.className = alarm.severity;
    row.append(Object.assign(document.createElement("b"), { textContent: alarm.severity }), ` ${alarm.text} `);
    const since = alarm.raised.slice(0, 19).replace("T", " ");
    const small = row.appendChild(document.createElement("small"));
    small.textContent = `${alarm.code}${alarm.subject ? `, ${alarm.subject}` : ""}, since ${since}${alarm.count > 1 ? `, ${alarm.count} times` : ""}`;
  }
  if (!list.length) {
    const row = made.appendChild(document.createElement("li"));
    row.className = "none";
    row.textContent = "No alarm stands.";
  }
  const place = $("alarms");
  if (place.textContent.replace(/\s+/g, " ").trim() !== made.textContent.replace(/\s+/g, " ").trim()) place.replaceChildren(made);
}

class Live {
  // One source: its newest picture, drawn as it comes. What the model says stands beside it with its age: that of the
  // frame on the screen, from its capture until now. It grows here while nothing comes.
  constructor(place) {
    this.place = place;
    this.name = place.dataset.live;
    this.stale = Number(place.dataset.staleMs);
    this.canvas = place.querySelector("canvas");
    this.shown = null;
    this.standing = "";
    this.draw();
  }

  told(channel) {
    this.standing = channel.state === "running" ? "" : `${channel.state}${channel.reason ? `: ${channel.reason}` : ""}`;
    const counts = channel.counts;
    if (counts) {
      const dropped = Object.entries(counts.dropped).filter(([, n]) => n).map(([why, n]) => `, ${n} dropped (${why})`).join("");
      this.place.querySelector(".account").textContent = `${counts.submitted} frames: ${counts.answered} answered${dropped}, ${counts.failed} failed`;
    }
  }

  tick() {
    if (this.standing || this.shown) this.say(".said", this.standing || this.shown.said || "nothing found");
    if (!this.shown) return;
    const age = performance.now() - this.shown.captured;
    this.place.toggleAttribute("data-stale", age > this.stale);
    this.place.toggleAttribute("data-gone", age > 2 * this.stale);
    const text = age < 10000 ? `${Math.round(age)} ms old` : `${Math.round(age / 1000)} s old`;
    this.say(".age", age > this.stale ? `STALE, ${text}` : text);
  }

  say(where, text) {
    const place = this.place.querySelector(where);
    if (place.textContent !== text) place.textContent = text;
  }

  async draw() {
    for (let after = -1; ;) {
      try {
        const answer = await fetch(`/live/${encodeURIComponent(this.name)}.jpg?age=0&after=${after}`, { signal: AbortSignal.timeout(5000) });
        const arrived = performance.now(), age = answer.headers.get("x-age-ms");
        if (!answer.ok) throw new Error(answer.status);
        after = Number(answer.headers.get("x-number"));
        const picture = await createImageBitmap(await answer.blob());
        if (this.canvas.width !== picture.width || this.canvas.height !== picture.height) Object.assign(this.canvas, { width: picture.width, height: picture.height });
        this.canvas.getContext("2d").drawImage(picture, 0, 0);
        picture.close();
        if (age !== null) this.shown = { captured: arrived - Number(age), said: decodeURIComponent(answer.headers.get("x-said")) };
        await new Promise((next) => setTimeout(next, 30));
      } catch {
        await new Promise((next) => setTimeout(next, 1000));
      }
    }
  }
}

function watch() {
  const frozen = performance.now() - heard > QUIET_MS;
  document.body.toggleAttribute("data-frozen", frozen);
  $("frozen").hidden = !frozen;
  if (frozen) {
    put("light-word", "Unknown: the server does not answer");
    put("lamp-word", "Unknown");
    put("lamp-why", "The server does not answer.");
  }
  for (const each of live.values()) each.tick();
}

function listen() {
  const source = new EventSource("/page/events");
  source.onmessage = (event) => told(JSON.parse(event.data));
  source.onerror = () => { if (source.readyState === EventSource.CLOSED) setTimeout(listen, 1000); };
}

live = new Map([...document.querySelectorAll("[data-live]")].map((place) => [place.dataset.live, new Live(place)]));
listen();
setInterval(watch, 200);
for (const place of document.querySelectorAll("[data-chart]")) {
  const refresh = async () => {
    try { chart(place, await (await fetch("/api/latency", { signal: AbortSignal.timeout(5000) })).json()); } catch { /* the banner says it */ }
  };
  refresh();
  setInterval(refresh, 5000);
}
