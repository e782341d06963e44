// Opacity lives in the document's style: it acts at once, outlives every redraw, and stays when pages are switched.
const page = document.documentElement;
const FIGURE = ".st-key-evidence .js-plotly-plot";
const SETTLED_MS = 300; // a turn of the wheel is many events
const HOLD_KEY = "h";
const TYPING = "input:not([type=range]), textarea, select, [contenteditable=true]";
const DRAG_PX = 400; // a drag of so many pixels passes through the whole range of the scan
const PAN_PX = 60; // an arrow key moves a zoomed picture so far
const ARROWS = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
let listeners; // of the drag in use
let watch; // looks for a figure drawn anew; one figure, one watch
let layer; // of distances over the figure

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

// Window of a drag by (dx, dy) px: up is brighter, right is softer.
const dragged = ({ center, width, low, high, step }, dx, dy) => ({
  center: clamp(center + (dy * (high - low)) / DRAG_PX, low, high),
  width: clamp(width + (dx * (high - low)) / DRAG_PX, step, Math.max(high - low, 2 * step)),
});

// What the new window does to the grey values on the screen, which the old window made.
const preview = (old, now) => {
  const slope = old.width / now.width;
  const shift = (old.center - now.center + (now.width - old.width) / 2) / now.width;
  const intercept = old.invert ? 1 - slope - shift : shift;
  for (const channel of document.querySelectorAll("#window-preview feComponentTransfer > *")) {
    channel.setAttribute("slope", slope);
    channel.setAttribute("intercept", intercept);
  }
  page.dataset.windowPreview = "";
};

// What an arrow key on the tools of the figure does: a drag, for Plotly moves pictures by the mouse only.
const drag = ([right, down]) => {
  const area = document.querySelector(`${FIGURE} .nsewdrag`);
  const { x, y, width, height } = area.getBoundingClientRect();
  const mouse = (name, target, by) =>
    target.dispatchEvent(
      new MouseEvent(name, {
        bubbles: true,
        clientX: x + width / 2 + by * right * PAN_PX,
        clientY: y + height / 2 + by * down * PAN_PX,
      }),
    );
  mouse("mousedown", area, 0);
  mouse("mousemove", document, 1);
  mouse("mouseup", document, 1);
};

export default function ({ parentElement, data, setStateValue, setTriggerValue }) {
  const windowing = parentElement.querySelector(".window");
  const slider = parentElement.querySelector("input");
  const output = parentElement.querySelector("output");
  const hide = parentElement.querySelector(".hide");
  const hold = parentElement.querySelector(".hold");
  const measure = parentElement.querySelector(".measure");
  const clear = parentElement.querySelector(".clear");
  const distances = parentElement.querySelector(".distances");
  const dataset = page.dataset;
  for (const part of parentElement.querySelectorAll(".of-maps")) part.hidden = !data.maps;
  windowing.hidden = !data.grey;

  const list = () => {
    const words = layer?.inWords() ?? "";
    distances.textContent = words && `Distances: ${words}`;
    clear.hidden = !words;
  };

  const show = (held = false) => {
    const hidden = dataset.mapHidden === "true";
    const opacity = dataset.mapOpacity ?? "60";
    page.style.setProperty("--map-opacity", String(Number(opacity) / 100));
    page.style.setProperty("--map-shown", hidden || held ? "0" : "1");
    slider.value = opacity;
    output.textContent = `${opacity} %`;
    hide.setAttribute("aria-pressed", String(hidden));
    windowing.setAttribute("aria-pressed", String(dataset.windowing === "true"));
    measure.setAttribute("aria-pressed", String(dataset.measuring === "true"));
  };

  slider.oninput = () => {
    dataset.mapOpacity = slider.value;
    show();
  };
  hide.onclick = () => {
    dataset.mapHidden = String(dataset.mapHidden !== "true");
    show();
  };
  windowing.onclick = () => {
    dataset.windowing = String(dataset.windowing !== "true");
    dataset.measuring = "false";
    show();
  };
  measure.onclick = () => {
    dataset.measuring = String(dataset.measuring !== "true");
    dataset.windowing = "false";
    if (layer) layer.cross = null;
    layer?.cancel();
    show();
  };
  measure.onkeydown = (event) => {
    if (dataset.measuring === "true" && layer?.press(event)) event.preventDefault();
  };
  clear.onclick = () => layer?.clear();
  listeners?.abort();
  const own = new AbortController(); // this call may be cleaned up after the next one has begun
  listeners = own;
  delete dataset.windowPreview; // the figure that follows is drawn with the new window
  let from = null;
  const listen = (name, act) =>
    document.addEventListener(name, act, { capture: true, passive: false, signal: own.signal });
  const isOnPicture = ({ target }) => target.closest?.(`${FIGURE} .draglayer`);
  const isWindowing = (event) => dataset.windowing === "true" && isOnPicture(event);
  const isMeasuring = (event) => dataset.measuring === "true" && layer && isOnPicture(event);
  for (const name of ["mousedown", "touchstart"]) {
    listen(name, (event) => {
      if (isWindowing(event) || isMeasuring(event)) (event.stopPropagation(), event.preventDefault()); // no panning
    });
  }
  listen("pointerdown", (event) => {
    if (event.button !== 0) return;
    if (isWindowing(event)) from = { x: event.clientX, y: event.clientY };
    if (isMeasuring(event)) layer.begin(event);
  });
  const at = (event) => dragged(data.window, event.clientX - from.x, event.clientY - from.y);
  listen("pointermove", (event) => {
    if (from) preview(data.window, at(event));
    layer?.move(event);
  });
  listen("pointerup", (event) => {
    layer?.end(event);
    if (from) setTriggerValue("window", { case: data.case, ...at(event) });
    from = null;
  });
  // The key works wherever the reader looks, but where it is a letter of a text or part of a shortcut.
  const isHeld = ({ key, target, ctrlKey, metaKey, altKey }) =>
    key?.toLowerCase() === HOLD_KEY && !(ctrlKey || metaKey || altKey || target.closest?.(TYPING));
  listen("keydown", (event) => isHeld(event) && show(true));
  listen("keyup", ({ key }) => key?.toLowerCase() === HOLD_KEY && show());
  window.addEventListener("blur", () => show(), { signal: own.signal });
  listen("keydown", (event) => {
    if (!(event.key in ARROWS) || !event.target.closest?.(`${FIGURE} .modebar`)) return;
    event.preventDefault(); // the page does not scroll
    drag(ARROWS[event.key]);
  });
  const isPress = (event) => event.key === " " || event.key === "Enter";
  hold.onpointerdown = () => show(true);
  hold.onkeydown = (event) => {
    if (isPress(event)) show(true); // no value: false would keep Tab from leaving the button
  };
  hold.onpointerup = hold.onpointerleave = hold.onpointercancel = hold.onkeyup = hold.onblur = () => show();

  clearInterval(watch);
  const ownWatch = setInterval(() => {
    const figure = document.querySelector(FIGURE);
    if (!figure?.on) return;
    if (layer?.figure !== figure || layer.scale.scan !== data.scale.scan) {
      layer?.svg.remove();
      layer = new Layer(figure, data.scale, list);
      list();
    }
    if (figure.dataset.watched === String(data.case)) return;
    figure.dataset.watched = data.case;
    figure.on("plotly_relayout", () => {
      clearTimeout(figure.zoomSettled);
      figure.zoomSettled = setTimeout(() => {
        const { xaxis, yaxis } = figure._fullLayout;
        setStateValue("zoom", { case: data.case, x: [...xaxis.range], y: [...yaxis.range] });
      }, SETTLED_MS);
    });
  }, 250);
  watch = ownWatch;

  show();
  return () => {
    clearInterval(ownWatch);
    own.abort();
    show();
  };
}
