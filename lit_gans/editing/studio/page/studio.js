// The studio's page. What it shows is what an edit script draws: `start` and `steps` are that script, and all there is.
"use strict";

let model = "", about = {}, start = { seed: 0 }, steps = [];
let done = [], page = 0, photo = null, job = null;

// ---- small things ---------------------------------------------------------------------------------------------------

const find = (selector, within = document) => within.querySelector(selector);
const plain = (value) => JSON.parse(JSON.stringify(value));
const can = (step) => (about.steps || []).includes(step);

function make(tag, given = {}, ...inner) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(given)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...inner.filter((one) => one !== null));
  return element;
}

function alarm(error) {
  const place = find("#alert");
  place.textContent = error ? error.message || String(error) : "";
  place.hidden = !error;
}

function tell(text) { find("#told").textContent = text; }

async function answer(response) {
  if (response.ok) return response;
  let why = `the studio answers ${response.status}`;
  try { why = (await response.json()).error || why; } catch { /* no JSON: the number says it */ }
  throw new Error(why);
}

async function request(path, given) {
  try { return await answer(await fetch(path, given)); } catch (error) {
    throw error instanceof TypeError ? new Error("the studio does not answer: is it still running?") : error;
  }
}

async function ask(name, said) {
  return (await request(`api/${name}`, { method: "POST", body: JSON.stringify({ model, ...said }) })).json();
}

async function send(name, file, said = {}) {
  const query = new URLSearchParams({ said: JSON.stringify({ model, ...said }) });
  return (await request(`api/${name}?${query}`, { method: "POST", body: file })).json();
}

// Long work, told line by line; what it ends with, or null where it was stopped.
async function work(name, said, each = () => {}) {
  const response = await request(`api/${name}`, { method: "POST", body: JSON.stringify({ model, ...said }) });
  const lines = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "", result = null;
  find("#busy").hidden = false;
  find("#busy span").textContent = "waiting for its turn";
  find("#busy progress").removeAttribute("value");
  try {
    for (let part = await lines.read(); !part.done; part = await lines.read()) {
      const found = (rest + part.value).split("\n");
      rest = found.pop();
      for (const line of found.map((text) => JSON.parse(text))) {
        if (line.job) job = line.job;
        else if (line.error && !line.stopped) throw new Error(line.error);
        else if (line.result) result = line.result;
        else if (line.total) {
          find("#busy span").textContent = `${line.done} of ${line.total}  ${line.more}`;
          find("#busy progress").value = line.done / line.total;
          if (line.image) find("#picture").src = line.image;
          each(line);
        }
      }
    }
  } finally { job = null; find("#busy").hidden = true; }
  return result;
}

async function tried(action) {
  try { alarm(null); await action(); } catch (error) { alarm(error); }
}

// ---- the script -----------------------------------------------------------------------------------------------------

let drawing = false, again = false;

// One question at a time, and of all that were asked meanwhile the last alone.
async function draw() {
  if (drawing) { again = true; return; }
  drawing = true;
  do {
    again = false;
    const began = performance.now(), late = setTimeout(() => tell("drawing"), 700);
    try {
      const shown = await ask("draw", { start, steps });
      show(shown);
      alarm(null);
      if (find("#told").textContent === "drawing") tell("");
      document.body.dataset.tookMs = (performance.now() - began).toFixed(0);
    } catch (error) { alarm(error); }
    clearTimeout(late);
  } while (again);
  drawing = false;
  document.body.dataset.drawn = Number(document.body.dataset.drawn || 0) + 1;
}

function show(shown) {
  const picture = find("#picture");
  picture.src = shown.image;
  find("#save").href = shown.image;
  if (shown.text !== undefined) {
    find("#script").value = shown.text;
    find("#use").disabled = true;
  }
}

// Before a change that can be undone.
function keep() {
  done.push(JSON.stringify({ start, steps }));
  if (done.length > 100) done.shift();
  find("#undo").disabled = false;
}

function change(newStart, newSteps, { panels = true } = {}) {
  keep();
  tell("");
  [start, steps] = [plain(newStart), plain(newSteps)];
  if (panels) build();
  return draw();
}

find("#undo").addEventListener("click", () => {
  ({ start, steps } = JSON.parse(done.pop()));
  find("#undo").disabled = !done.length;
  build();
  draw();
});

const before = find("#before");
const release = () => { if (before.dataset.now) { find("#picture").src = before.dataset.now; delete before.dataset.now; } };
async function hold() {
  before.dataset.now = find("#picture").src;
  const shown = await ask("draw", { start, steps: [] });
  if (before.dataset.now) find("#picture").src = shown.image;
}
before.addEventListener("pointerdown", () => tried(hold));
before.addEventListener("keydown", (event) => { if (event.key === " " && !event.repeat) tried(hold); });
for (const end of ["pointerup", "pointerleave", "keyup", "blur"]) before.addEventListener(end, release);

find("#script").addEventListener("input", () => { find("#use").disabled = false; });
find("#use").addEventListener("click", () => tried(async () => take(await ask("read", { text: find("#script").value }))));
find("#load").addEventListener("change", (event) => tried(async () => {
  const [file] = event.target.files;
  event.target.value = "";
  if (file) take(await send("load", file));
}));
find("#download").addEventListener("click", () => tried(async () => {
  const response = await request("api/pack", { method: "POST", body: JSON.stringify({ model, start, steps }) });
  offer(await response.blob(), response.headers.get("X-Name"));
}));
find("#stop").addEventListener("click", () => tried(() => ask("stop", { job })));

function take(read) {
  keep();
  ({ start, steps } = read);
  show(read);
  build();
}

function offer(blob, name) {
  const url = URL.createObjectURL(blob);
  make("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

// ---- parts of panels ------------------------------------------------------------------------------------------------

let serial = 0;

function card(title, more, ...inner) {
  const head = make("h2", {}, title, more ? make("span", { className: "about" }, more) : null);
  return make("section", { className: "card", ariaLabel: title }, head, ...inner);
}

function button(text, onclick, given = {}) { return make("button", { type: "button", onclick, ...given }, text); }

// A slider and its number. `set` is called at each move, `keep` before the first of a row of moves.
function slider(label, value, [low, high, step], set) {
  const id = `n${++serial}`;
  const range = make("input", { type: "range", id, min: low, max: high, step, value });
  const number = make("input", { type: "number", min: low, max: high, step: "any", value, ariaLabel: `${label}, number` });
  let moving = false;
  const moved = (from, to) => {
    if (from.value === "" || !isFinite(from.value)) return;
    if (!moving) { keep(); moving = true; }
    to.value = from.value;
    set(Number(from.value));
    draw();
  };
  range.addEventListener("input", () => moved(range, number));
  number.addEventListener("input", () => moved(number, range));
  for (const one of [range, number]) one.addEventListener("change", () => { moving = false; });
  return make("div", { className: "slider" }, make("label", { htmlFor: id }, label), range, number);
}

function field(label, input) {
  input.id = input.id || `n${++serial}`;
  return make("div", { className: "field" }, make("label", { htmlFor: input.id }, label), input);
}

function choice(options, value, set) {
  const shown = options.map((one) => (Array.isArray(one) ? one : [one, one]));
  const select = make("select", { onchange: () => set(shown[select.selectedIndex][0]) });
  for (const [own, text] of shown) select.append(make("option", { selected: own === value }, String(text)));
  return select;
}

function seedInput(value, set) {
  const input = make("input", { type: "number", min: 0, max: 2 ** 31 - 1, step: 1, value });
  input.addEventListener("change", () => { if (input.value !== "") set(Math.max(0, Math.round(Number(input.value)))); });
  return input;
}

function classChoice(value, set, none = "the seed's own") {
  const options = [[null, none], ...about.classes.map((name, number) => [number, name])];
  const own = typeof value === "string" ? about.classes.indexOf(value) : value;
  return choice(options, own === undefined ? null : own, set);
}

// An object with a value set, or without it where it is as by default.
function set(object, name, value, otherwise) {
  if (value === otherwise) delete object[name];
  else object[name] = value;
}

// ---- where it begins ------------------------------------------------------------------------------------------------

const PER_PAGE = 12;

function beginPanel() {
  const inner = [];
  if (about.captions) {
    const text = make("textarea", { value: start.caption || "", placeholder: "what shall be drawn", maxLength: 500 });
    text.addEventListener("change", () => {
      if (text.value.trim()) change({ caption: text.value.trim(), seed: start.seed || 0, psi: start.psi ?? 1 }, steps);
    });
    inner.push(field("Caption", text));
  }
  if ("seed" in start || about.captions) {
    const seed = seedInput(start.seed || 0, (value) => change({ ...start, seed: value }, steps));
    inner.push(make("div", { className: "row" }, field("Seed", seed),
      button("Another", () => change({ ...start, seed: Math.floor(Math.random() * 100000) }, steps))));
    if (about.classes.length && !about.captions) {
      inner.push(field("Class", classChoice(start.label, (label) => {
        const next = plain(start);
        set(next, "label", label, null);
        change(next, steps);
      })));
    }
    inner.push(slider("Truncation", start.psi ?? 1, [0, 1, 0.01], (psi) => { set(start, "psi", psi, 1); regrid(); }));
    const seeds = make("div", { className: "seeds", id: "seeds" });
    inner.push(seeds, make("div", { className: "row" },
      button("Earlier seeds", () => { page = Math.max(0, page - 1); grid(); }), button("Later seeds", () => { page += 1; grid(); })));
  } else {
    inner.push(make("p", {}, "It begins with a photograph that was found in the model."),
      button("Begin with a seed again", () => change({ seed: 0 }, steps)));
  }
  return card("Begin", "what is drawn of a seed", ...inner);
}

let gridding = 0, waiting = null;

function regrid() { clearTimeout(waiting); waiting = setTimeout(grid, 600); }

async function grid() {
  const place = find("#seeds");
  if (!place || (about.captions && !start.caption)) return;
  const own = ++gridding, first = page * PER_PAGE;
  place.replaceChildren(...Array.from({ length: PER_PAGE }, (_, i) => {
    const seed = first + i;
    return make("button", { type: "button", title: `seed ${seed}`, className: seed === start.seed ? "on" : "",
      onclick: () => change({ ...start, seed }, steps) }, make("img", { alt: "", className: small() }), String(seed));
  }));
  for (let i = 0; i < PER_PAGE; i += 3) {  // a few at a time, so that a slider need not wait for all
    const seeds = [0, 1, 2].map((k) => first + i + k);
    try {
      const { images } = await ask("grid", { start, seeds });
      if (own !== gridding) return;
      images.forEach((image, k) => { place.children[i + k].firstChild.src = image; });
    } catch (error) { alarm(error); return; }
  }
}

function small() { return about.resolution && about.resolution < 200 ? "small" : ""; }

// ---- steps ----------------------------------------------------------------------------------------------------------

const ABOUT = {
  mix: "styles of some layers from another seed", blend: "on the way to another seed", truncate: "towards the mean",
  noise: "other noise maps", class: "the same in another class",
};
const FRESH = {
  mix: () => ({ seed: 1, layers: "fine" }), blend: () => ({ seed: 1 }), truncate: () => ({ psi: 0.7 }), noise: () => ({ kind: "none" }),
  class: () => ({ label: 0 }),
};
const TITLES = { direction: (said) => `${title(said.file)}: ${said.name || "first"}, ${said.by ?? 1}`, map: (said) => `${title(said.file)}, ${said.by ?? 0.1}`,
  shift: (said) => `${title(said.file)}, ${said.by ?? 1}`, text: (said) => `“${said.text}”, ${said.steps ?? 300} steps`,
  drag: (said) => `${said.handles.length === 1 ? "1 point" : `${said.handles.length} points`}, ${said.max_steps ?? 300} steps${said.mask ? ", with a mask" : ""}` };

function title(file) { return [...about.moves, ...uploads].find((one) => one.file === file)?.title || file; }

const FORMS = {
  mix: (said) => [otherSeed(said), layersOf(said), by(said, 1), otherClass(said)],
  blend: (said) => [otherSeed(said), by(said, 0.5), otherClass(said)],
  truncate: (said) => [slider("Psi", said.psi, [0, 1, 0.01], (value) => { said.psi = value; })],
  noise: (said) => [
    field("Kind", choice(["none", "const", "random"], said.kind, (kind) => { keep(); said.kind = kind; build(); draw(); })),
    said.kind === "random" ? otherSeed(said) : null,
  ],
  class: (said) => [field("Class", classChoice(said.label, (label) => { keep(); said.label = label ?? 0; draw(); }, "the first"))],
};

function otherSeed(said) {
  return field("Seed", seedInput(said.seed || 0, (value) => { keep(); said.seed = value; draw(); }));
}

function by(said, otherwise) {
  return slider("By", said.by ?? otherwise, [0, 1, 0.01], (value) => set(said, "by", value, otherwise));
}

function otherClass(said) {
  if (!about.classes.length) return null;
  return field("Class", classChoice(said.label, (label) => { keep(); set(said, "label", label, null); draw(); }, "the picture's"));
}

function layersOf(said) {
  const all = Array.from({ length: about.rows }, (_, row) => row);
  const chosen = new Set(rowsOf(said.layers ?? "coarse"));
  const use = (layers) => { keep(); set(said, "layers", layers, "coarse"); build(); draw(); };
  const groups = Object.entries(about.groups).filter(([, rows]) => rows.length).map(([name]) =>
    button(name, () => use(name), { className: said.layers === name || (!said.layers && name === "coarse") ? "on" : "" }));
  const rows = all.map((row) => button(String(row), () => {
    const now = all.filter((one) => (one === row ? !chosen.has(one) : chosen.has(one)));
    if (now.length) use(now);
  }, { className: chosen.has(row) ? "on" : "", title: `layer ${row}`, ariaPressed: chosen.has(row) }));
  return make("div", { className: "field" }, make("span", {}, "Layers"), make("div", { className: "chips" }, ...groups, ...rows));
}

// Numbers of "0-3,7", of a list or of a group.
function rowsOf(layers) {
  if (Array.isArray(layers)) return layers;
  if (layers in about.groups) return about.groups[layers];
  return String(layers).split(",").flatMap((part) => {
    const [first, last] = part.split("-").map(Number);
    return Array.from({ length: (last ?? first) - first + 1 }, (_, i) => first + i);
  });
}

function stepCard(step, number) {
  const [[name, said]] = Object.entries(step);
  const move = (to) => {
    const next = plain(steps);
    next.splice(to, 0, ...next.splice(number, 1));
    change(start, next);
  };
  const head = make("div", { className: "head" }, make("b", {}, `${number + 1}. ${name}`),
    button("↑", () => move(number - 1), { className: "plain", title: "earlier", disabled: number === 0 }),
    button("↓", () => move(number + 1), { className: "plain", title: "later", disabled: number === steps.length - 1 }),
    button("×", () => change(start, steps.filter((_, i) => i !== number)), { className: "plain", title: "remove" }));
  const inner = FORMS[name] ? FORMS[name](said) : [make("p", { className: "about" }, (TITLES[name] || shortened)(said))];
  return make("div", { className: "card step" }, head, ...inner);
}

function shortened(said) {
  const text = JSON.stringify(said);
  return text.length > 300 ? `${text.slice(0, 300)}…` : text;
}

function stepsPanel() {
  const adds = Object.keys(FRESH).filter(can).map((name) =>
    button(`+ ${name}`, () => change(start, [...steps, { [name]: FRESH[name]() }]), { title: ABOUT[name] }));
  return card("Steps", "one after the other", ...steps.map(stepCard), make("div", { className: "row" }, ...adds));
}

// ---- directions, mappers, shifts --------------------------------------------------------------------------------------

let uploads = [];
const REACH = { direction: [-4, 4, 0.1], map: [0, 0.4, 0.01], shift: [-10, 10, 0.1] };

function movesPanel() {
  const offers = [...about.moves, ...uploads].filter((offer) => can(offer.step));
  const groups = offers.map((offer) => make("div", {}, make("p", { className: "about" }, `${offer.title} (${offer.step})`),
    make("div", { className: "many" }, ...offer.names.map((name) => moveSlider(offer, name)))));
  const add = drop("A file of lit-gans directions or restyle, or", async (file) => {
    const offer = await send("move", file, { title: file.name.replace(/\.safetensors$/, "") });
    uploads = [...uploads.filter((one) => one.file !== offer.file), offer];
    build();
  }, ".safetensors");
  return card("Directions", "standard deviations along each", ...groups, add);
}

function moveSlider(offer, name) {
  const own = () => steps.find((one) => one[offer.step] && one[offer.step].file === offer.file
    && (offer.step !== "direction" || one.direction.name === name));
  const made = slider(name || offer.title, own()?.[offer.step].by ?? 0, REACH[offer.step], (by) => {
    if (!own()) steps.push({ [offer.step]: { file: offer.file, ...(offer.step === "direction" ? { name } : {}), by } });
    else if (by === 0) steps.splice(steps.indexOf(own()), 1);
    else own()[offer.step].by = by;
    find("[aria-label=Steps]").replaceWith(stepsPanel());
  });
  return made;
}

// ---- dragging points ------------------------------------------------------------------------------------------------

let tool = "", points = [], brush = 8, pulls = 100;
const overlay = find("#overlay"), mask = document.createElement("canvas");

function dragPanel() {
  const use = (name) => () => { tool = tool === name ? "" : name; build(); paint(); };
  const tools = [["points", "Set points"], ["keep", "Brush what stays"], ["erase", "Erase"]].map(([name, text]) =>
    button(text, use(name), { className: tool === name ? "on" : "", ariaPressed: tool === name }));
  const go = button("Drag", () => tried(async () => {
    const set = points.filter((one) => one.target);
    if (!set.length) throw new Error("set points first: press on the picture where something is, and let go where it shall be");
    go.disabled = true;
    tool = "";
    try {
      const drag = { handles: set.map((one) => one.handle), targets: set.map((one) => one.target), max_steps: pulls };
      if (brushed()) drag.mask = (await send("mask", await new Promise((done) => mask.toBlob(done)))).file;
      const made = await work("drag", { start, steps, drag }, (line) => { set.forEach((one, i) => { one.handle = line.handles[i]; }); paint(); });
      if (!made) return;
      keep();
      steps = [...steps, made.step];
      set.forEach((one, i) => { one.handle = made.handles[i]; });
      show(made);
      tell(`dragged in ${made.step.drag.max_steps} steps`);
      build();
      paint();
    } finally { go.disabled = false; }
  }), { className: "main", id: "drag" });
  const clear = button("Clear", () => { points = []; tool = ""; wipe(); build(); paint(); });
  const size = slider("Brush", brush, [1, 32, 1], () => {});
  find("input", size).addEventListener("input", (event) => { brush = Number(event.target.value); });
  return card("Drag", "press on a point, let go where it shall be; or click twice",
    make("div", { className: "row" }, ...tools, clear), tool === "keep" || tool === "erase" ? size : null,
    make("div", { className: "row" }, field("Steps", choice([20, 50, 100, 300], pulls, (value) => { pulls = value; })), go));
}

function wipe() {
  mask.width = mask.height = about.resolution;
  mask.getContext("2d").fillRect(0, 0, mask.width, mask.height);
}

function brushed() {
  const { data } = mask.getContext("2d").getImageData(0, 0, mask.width, mask.height);
  return data.some((value, i) => i % 4 === 0 && value > 127);
}

// Pixels of the picture, (0, 0) the middle of the first.
function pixel(event) {
  const box = overlay.getBoundingClientRect(), r = about.resolution;
  const inside = (share) => Math.min(r - 1, Math.max(0, Math.round((share * r - 0.5) * 10) / 10));
  return [inside((event.clientX - box.left) / box.width), inside((event.clientY - box.top) / box.height)];
}

let pressed = null;

overlay.addEventListener("pointerdown", (event) => {
  event.preventDefault();
  overlay.setPointerCapture(event.pointerId);
  const at = pixel(event), last = points.at(-1);
  pressed = { at, stroke: at };
  if (tool === "points" && !(last && !last.target)) points.push({ handle: at.map(Math.round), target: null });
  if (tool === "points" && last && !last.target) { last.target = at; pressed = null; }
  if (tool === "keep" || tool === "erase") strike(at, at);
  paint();
});
overlay.addEventListener("pointermove", (event) => {
  if (!pressed) return;
  const at = pixel(event);
  if (tool === "points" && Math.hypot(at[0] - pressed.at[0], at[1] - pressed.at[1]) > about.resolution / 64) points.at(-1).target = at;
  if (tool === "keep" || tool === "erase") { strike(pressed.stroke, at); pressed.stroke = at; }
  paint();
});
for (const end of ["pointerup", "pointercancel"]) overlay.addEventListener(end, () => { pressed = null; });

function strike([x, y], [u, v]) {
  const pen = mask.getContext("2d");
  Object.assign(pen, { strokeStyle: tool === "keep" ? "#fff" : "#000", lineWidth: brush * about.resolution / 64, lineCap: "round" });
  pen.beginPath();
  pen.moveTo(x + 0.5, y + 0.5);
  pen.lineTo(u + 0.51, v + 0.5);
  pen.stroke();
}

function paint() {
  overlay.hidden = !tool && !points.length;
  if (overlay.hidden) return;
  const side = overlay.width = overlay.height = overlay.clientWidth * (window.devicePixelRatio || 1);
  overlay.style.pointerEvents = tool ? "auto" : "none";
  const pen = overlay.getContext("2d"), scale = side / about.resolution, dot = Math.max(5, side / 80);
  if (brushed()) {
    pen.globalAlpha = 0.35;
    pen.imageSmoothingEnabled = false;
    pen.globalCompositeOperation = "source-over";
    const tinted = document.createElement("canvas");
    tinted.width = tinted.height = about.resolution;
    const under = tinted.getContext("2d"), { data } = mask.getContext("2d").getImageData(0, 0, mask.width, mask.height);
    const colours = under.createImageData(mask.width, mask.height);
    for (let i = 0; i < data.length; i += 4) if (data[i] > 127) colours.data.set([20, 160, 90, 255], i);
    under.putImageData(colours, 0, 0);
    pen.drawImage(tinted, 0, 0, side, side);
    pen.globalAlpha = 1;
  }
  for (const { handle, target } of points) {
    const [from, to] = [handle, target].map((one) => one && one.map((value) => (value + 0.5) * scale));
    pen.lineWidth = dot / 3;
    pen.strokeStyle = "#fff";
    if (to) { pen.beginPath(); pen.moveTo(...from); pen.lineTo(...to); pen.stroke(); }
    for (const [place, colour] of [[to, "#2f60ff"], [from, "#e01e1e"]]) {
      if (!place) continue;
      pen.beginPath();
      pen.arc(...place, dot, 0, 7);
      pen.fillStyle = colour;
      pen.fill();
      pen.stroke();
    }
  }
}
window.addEventListener("resize", paint);

// ---- edits by text --------------------------------------------------------------------------------------------------

let wanted = { text: "", steps: 100 };

function textPanel() {
  const text = make("textarea", { value: wanted.text, placeholder: "what the picture shall show", maxLength: 300 });
  text.addEventListener("input", () => { wanted.text = text.value; });
  const count = choice([20, 50, 100, 300], wanted.steps, (value) => { wanted.steps = value; });
  const go = button("Lead it there", () => tried(async () => {
    go.disabled = true;
    try {
      const made = await work("text", { start, steps, text: { ...about.image_text, ...wanted } });
      if (!made) return;
      keep();
      steps = [...steps, made.step];
      show(made);
      build();
    } finally { go.disabled = false; }
  }), { className: "main", id: "text" });
  return card("Text", "led by what is written", field("Text", text), make("div", { className: "row" }, field("Steps", count), go));
}

// ---- photographs ----------------------------------------------------------------------------------------------------

function drop(text, take, accept = "image/png,image/jpeg,image/webp,image/bmp,image/tiff") {
  const input = make("input", { type: "file", accept, className: "unseen",
    onchange: () => { const [file] = input.files; input.value = ""; if (file) tried(() => take(file)); } });
  const area = make("div", { className: "drop" }, text, " ", make("label", { className: "button" }, "Choose a file", input));
  area.addEventListener("dragover", (event) => { event.preventDefault(); area.classList.add("over"); });
  area.addEventListener("dragleave", () => area.classList.remove("over"));
  area.addEventListener("drop", (event) => {
    event.preventDefault();
    area.classList.remove("over");
    const [file] = event.dataTransfer.files;
    if (file) tried(() => take(file));
  });
  return area;
}

let search = { steps: 300, tune: 0, label: null };

function photoPanel() {
  const inner = [drop("Drop a picture here, or", async (file) => { photo = await send("photo", file); build(); })];
  if (photo) {
    const count = choice([100, 300, 600, 1000], search.steps, (value) => { search.steps = value; });
    if (!about.spaces.includes(search.space)) search.space = about.spaces[0];
    const names = { w: "W: one style", "w+": "W+: one for each layer", z: "Z: its latent" };
    const space = choice(about.spaces.map((one) => [one, names[one]]), search.space, (value) => { search.space = value; });
    const tune = choice([[0, "no"], [100, "100 steps"], [350, "350 steps"]], search.tune, (value) => { search.tune = value; });
    const go = button("Find it in the model", () => tried(async () => {
      go.disabled = true;
      try {
        const found = await work("project", { file: photo.file, ...search });
        if (found) { await change(found.start, steps); tell(found.told); } else draw();
      } finally { go.disabled = false; }
    }), { className: "main", id: "project" });
    inner.push(make("div", { className: "pair" }, make("img", { src: photo.image, alt: "the photograph", className: small() }),
      make("div", {}, make("p", { className: "about" }, photo.told), field("Steps", count), field("Space", space), field("Tuned weights", tune),
        about.classes.length ? field("Class", classChoice(search.label, (label) => { search.label = label; }, "any")) : null, go)));
  }
  return card("Photograph", "the picture nearest to it, to be edited", ...inner);
}

// ---- films ----------------------------------------------------------------------------------------------------------

let film = { frames: 60, format: "gif", seeds: "0, 1, 2, 3" };

function filmPanel() {
  const seeds = make("input", { type: "text", value: film.seeds, onchange: () => { film.seeds = seeds.value; } });
  const frames = choice([24, 60, 120, 240], film.frames, (value) => { film.frames = value; });
  const format = choice(about.formats, film.format, (value) => { film.format = value; });
  const walk = button("Make the walk the script", () => tried(async () => {
    const [first, ...others] = seeds.value.split(/[\s,]+/).filter(Boolean).map(Number);
    if (!others.length || ![first, ...others].every((one) => Number.isInteger(one) && one >= 0)) throw new Error("a walk goes through two seeds or more: give them as 0, 1, 2");
    const more = { by: 1, ...(start.psi === undefined ? {} : { psi: start.psi }) };
    const begin = "seed" in start ? { ...start, seed: first } : { seed: first };
    await change(begin, [...others, first].map((seed) => ({ blend: { seed, ...more } })));
  }));
  const go = button("Film all steps", () => tried(async () => {
    go.disabled = true;
    try {
      const made = await work("film", { start, steps, frames: film.frames, format: film.format });
      if (!made) return;
      const src = `files/${made.file}`, moving = film.format === "mp4";
      const shown = moving ? make("video", { src, controls: true, loop: true, autoplay: true, muted: true }) : make("img", { src, alt: "the film" });
      find("#film").replaceChildren(make("figure", {}, shown), make("a", { className: "button", href: src, download: `film.${film.format}` }, "Download the film"));
    } finally { go.disabled = false; }
  }), { className: "main", id: "film-go" });
  return card("Film", "from the start through all steps", can("blend") ? field("Seeds", seeds) : null,
    can("blend") ? make("div", { className: "row" }, walk) : null,
    make("div", { className: "row" }, field("Frames", frames), about.formats.length > 1 ? field("Format", format) : null, go), make("div", { id: "film" }));
}

// ---- translation ----------------------------------------------------------------------------------------------------

let way = null, uploaded = null, chance = 0;

function translatePanel() {
  const ways = Object.keys(about.directions);
  way = ways.includes(way) ? way : ways[0];
  const labels = about.directions[way].labels;
  const again = () => { if (uploaded) tried(translate); };
  const inner = [
    ways.length > 1 ? field("Direction", choice(ways, way, (value) => { way = value; build(); again(); })) : null,
    field("Seed", seedInput(chance, (value) => { chance = value; again(); })),
    drop(labels ? "Drop a label map here, or" : "Drop a picture here, or", async (file) => { uploaded = file; await translate(); }),
    make("div", { className: "pair", id: "source" }),
  ];
  return card("Translate", `${about.family}, ${way}`, ...inner);
}

async function translate() {
  tell("translating");
  const made = await send("translate", uploaded, { direction: way, seed: chance });
  show(made);
  tell(made.told);
  find("#source").replaceChildren(make("figure", {}, make("img", { src: made.before, alt: "what was uploaded" }), make("figcaption", {}, made.told)));
  document.body.dataset.drawn = Number(document.body.dataset.drawn || 0) + 1;
}

// ---- the whole ------------------------------------------------------------------------------------------------------

const PANELS = [
  [() => about.kind === "generator", beginPanel],
  [() => about.kind === "generator", stepsPanel],
  [() => can("direction"), movesPanel],
  [() => can("drag"), dragPanel],
  [() => can("text"), textPanel],
  [() => about.spaces && about.spaces.length, photoPanel],
  [() => about.kind === "generator", filmPanel],
  [() => about.kind === "translator", translatePanel],
];

function build() {
  const place = find("#panels"), kept = document.activeElement && document.activeElement.title;
  const seen = find("#film", place), seeds = find("#seeds", place);
  place.replaceChildren(...PANELS.filter(([shown]) => shown()).map(([, panel]) => panel()));
  if (seen && find("#film", place)) find("#film", place).replaceWith(seen);
  if (kept) find(`[title="${CSS.escape(kept)}"]`, place)?.focus();
  const now = find("#seeds", place), like = JSON.stringify([model, page, { ...start, seed: null }]);
  if (now && seeds && seeds.dataset.like === like) {  // only which of them is chosen can have changed
    now.replaceWith(seeds);
    for (const one of seeds.children) one.className = one.title === `seed ${start.seed}` ? "on" : "";
  } else if (now) { now.dataset.like = like; grid(); }
}

async function choose(name) {
  const found = await ask("describe", { model: name });
  [model, about] = [name, found];
  [start, steps, done, page, photo, uploaded] = [{ seed: 0 }, [], [], 0, null, null];
  [tool, points, uploads, search.label] = ["", [], [], null];
  if (about.resolution) wipe();
  paint();
  const px = about.resolution ? `${about.resolution} px, ` : "";
  find("#facts").textContent = `${about.family}, ${px}${about.kimg} kimg`;
  find("#picture").className = small();
  find("#picture").removeAttribute("src");
  find("#stage").className = about.kind === "translator" ? "stage wide" : "stage";
  find("#undo").disabled = true;
  const edits = about.kind === "generator";
  for (const id of ["#before", "#undo", "#use", "#download"]) find(id).hidden = !edits;
  find("#load").parentElement.hidden = !edits;
  find("#script-about").textContent = edits ? "replays with lit-gans edit" : "the command for a picture or a folder";
  find("#script").readOnly = !edits;
  find("#script").value = "";
  if (about.captions) start = { caption: about.example || "", seed: 0 };
  tell(about.kind === "other" ? "This model draws nothing that the studio can show." : "");
  build();
  if (edits && (!about.captions || start.caption)) await draw();
  document.body.dataset.model = name;
}

tried(async () => {
  const { models } = await (await request("api/models")).json();
  const select = find("#model");
  select.replaceChildren(...models.map((name) => make("option", {}, name)));
  select.addEventListener("change", () => tried(() => choose(select.value)));
  find(".model").hidden = models.length < 2;
  document.title = models.length === 1 ? `Studio: ${models[0]}` : "Studio";
  await choose(models[0]);
});
