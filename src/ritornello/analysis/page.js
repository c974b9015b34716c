"use strict";
document.documentElement.classList.add("js");
const data = JSON.parse(document.getElementById("data").textContent);
const make = (tag, text = "", kind = "") => Object.assign(document.createElement(tag), { textContent: text, className: kind });
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

function readCurve(curve, frame) {
  const axis = frame.dataset.axis === "words" ? 0 : 1;
  const chart = frame.querySelector(".chart"), cursor = frame.querySelector(".cursor");
  const [line, dot] = cursor.children, read = frame.parentElement.querySelector(".read");
  const short = n => Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 }).format(n);
  const clock = s => Math.floor(s / 60) + ":" + String(Math.round(s) % 60).padStart(2, "0");
  const nearest = (points, at) => points.reduce((best, p) => Math.abs(p[axis] - at) < Math.abs(best[axis] - at) ? p : best);
  let index = curve.train.length - 1;

  function show() {
    const point = curve.train[index], x = point[axis] / curve[frame.dataset.axis];
    line.setAttribute("x1", x * 100 + "%");
    line.setAttribute("x2", x * 100 + "%");
    dot.setAttribute("cx", x * 100 + "%");
    dot.setAttribute("cy", clamp((curve.high - point[2]) / (curve.high - curve.low), 0, 1) * 100 + "%");
    const held = curve.held.length ? "\nheld-out text " + nearest(curve.held, point[axis])[2].toFixed(2) + ", nearest" : "";
    read.textContent = `${short(point[0])} words, ${clock(point[1])}\ntraining ${point[2].toFixed(2)} ${curve.unit}${held}`;
    cursor.removeAttribute("hidden");
    read.hidden = false;
    const box = chart.getBoundingClientRect(), home = frame.parentElement.getBoundingClientRect();
    const left = box.left - home.left + x * box.width + 12;
    read.style.left = (left + read.offsetWidth > home.width ? Math.max(0, left - read.offsetWidth - 24) : left) + "px";
    read.style.top = box.top - home.top + 4 + "px";
  }
  function hide() {
    cursor.setAttribute("hidden", "");
    read.hidden = true;
  }
  chart.setAttribute("tabindex", "0");
  const follow = event => {
    const box = chart.getBoundingClientRect();
    index = curve.train.indexOf(nearest(curve.train, (event.clientX - box.left) / box.width * curve[frame.dataset.axis]));
    show();
  };
  chart.addEventListener("pointermove", follow);
  chart.addEventListener("pointerdown", follow);
  chart.addEventListener("pointerleave", hide);
  chart.addEventListener("blur", hide);
  chart.addEventListener("keydown", event => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (event.key === "Escape") hide();
    if (!by) return;
    event.preventDefault();
    index = clamp(index + by, 0, curve.train.length - 1);
    show();
  });
}

function readPassage(passage, home, tip) {
  const parts = [];
  for (const span of home.querySelectorAll("i")) {
    if (!span.classList.contains("c")) parts.push([]);
    parts.at(-1).push(span);
  }
  const place = new Map(parts.flatMap((spans, index) => spans.map(span => [span, index])));
  const percent = p => p < .001 ? "< 0.1 %" : p < .1 ? (p * 100).toFixed(1) + " %" : Math.round(p * 100) + " %";
  const chance = bits => bits < 3 ? percent(2 ** -bits) + " likely" : "1 in " + (2 ** bits).toLocaleString("en", { maximumSignificantDigits: 3 });
  const written = spans => spans.map(s => s.textContent + (s.classList.contains("n") ? "↵" : "")).join("").replaceAll(" ", "␣").replaceAll("\t", "⇥");
  let at = -1, pinned = false;

  function fill(index) {
    const bits = passage.millibits[index] / 1000, several = passage.several[index];
    const text = written(parts[index]), word = make("strong"), list = make("ol");
    word.append(make("bdi", text));
    passage.likely[index].forEach((value, k, flat) => {
      if (k % 2) return;
      const row = make("li"), guess = passage.guesses[value], bar = make("i"), p = flat[k + 1] / 1000;
      bar.style.width = p * 100 + "%";
      row.append(make("bdi", guess), bar, make("span", percent(p)));
      row.className = guess === text ? "hit" : "";
      list.append(row);
    });
    tip.replaceChildren(word, `${bits.toFixed(2)} bits, ${several === undefined ? chance(bits) : "in " + several + " tokens"}`, list);
  }
  function show(index) {
    hide();
    at = index;
    parts[at].forEach(span => span.classList.add("on"));
    fill(at);
    tip.hidden = false;
    const box = parts[at][0].getClientRects()[0] ?? parts[at][0].getBoundingClientRect();
    const below = box.bottom + 8 + tip.offsetHeight < innerHeight;
    tip.style.left = clamp(box.left, 8, document.documentElement.clientWidth - tip.offsetWidth - 8) + "px";
    tip.style.top = (below ? box.bottom + 8 : Math.max(8, box.top - tip.offsetHeight - 8)) + "px";
  }
  function hide() {
    if (at >= 0) parts[at].forEach(span => span.classList.remove("on"));
    tip.hidden = true;
  }
  home.addEventListener("pointerover", event => {
    if (!pinned && place.has(event.target)) show(place.get(event.target));
  });
  home.addEventListener("pointerleave", () => pinned || hide());
  home.addEventListener("click", event => {
    pinned = place.has(event.target) && !(pinned && place.get(event.target) === at);
    if (place.has(event.target)) show(place.get(event.target)); else hide();
  });
  home.addEventListener("blur", () => { pinned = false; hide(); });
  addEventListener("scroll", () => { if (!home.matches(":focus-visible")) { pinned = false; hide(); } }, { capture: true, passive: true });
  home.addEventListener("keydown", event => {
    const ahead = getComputedStyle(parts[Math.max(0, at)][0]).direction === "rtl" ? -1 : 1;
    const by = { ArrowRight: ahead, ArrowLeft: -ahead }[event.key];
    if (event.key === "Escape") { pinned = false; hide(); }
    if (!by) return;
    event.preventDefault();
    const next = clamp(at + by, 0, parts.length - 1);
    parts[next][0].scrollIntoView({ block: "nearest" });
    show(next);
  });
}

function stream(sample) {
  const spans = [...sample.querySelectorAll(".text span")], texts = spans.map(span => span.textContent);
  const split = text => Intl.Segmenter ? [...new Intl.Segmenter().segment(text)].map(part => part.segment) : [...text];
  const letters = texts.map(split), count = letters.reduce((sum, line) => sum + line.length, 0);
  let run = 0;

  function draw(shown) {
    spans.forEach((span, line) => {
      const here = clamp(shown, 0, letters[line].length);
      shown -= letters[line].length;
      const rest = make("span", letters[line].slice(here).join(""), "rest");
      span.replaceChildren(letters[line].slice(0, here).join(""), ...(rest.textContent ? [rest] : []));
    });
  }
  return function play() {
    const own = ++run, begin = performance.now(), length = clamp(count * 14, 1500, 9000);
    requestAnimationFrame(function next(now) {
      if (own !== run) return;
      const share = clamp((now - begin) / length, 0, 1);
      draw(Math.round(count * share));
      if (share < 1) requestAnimationFrame(next);
    });
  };
}

if (data.curve) document.querySelectorAll(".frame").forEach(frame => readCurve(data.curve, frame));
if (data.passage) readPassage(data.passage, document.getElementById("passage"), document.getElementById("tip"));

addEventListener("beforeprint", () => document.querySelectorAll("details").forEach(fold => { fold.open = true; }));

const plays = new Map([...document.querySelectorAll(".sample")].map(sample => [sample, stream(sample)]));
document.getElementById("replay")?.addEventListener("click", () => plays.forEach(play => play()));
if (!matchMedia("(prefers-reduced-motion: reduce)").matches) {
  const seen = new IntersectionObserver(entries => entries.filter(entry => entry.isIntersecting).forEach(entry => {
    seen.unobserve(entry.target);
    plays.get(entry.target)();
  }), { threshold: .3 });
  plays.forEach((_, sample) => seen.observe(sample));
}
