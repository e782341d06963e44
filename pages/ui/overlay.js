// Opacity lives in the document's style: it acts at once, outlives every redraw, and stays when pages are switched.
const page = document.documentElement;
const NARROW = window.matchMedia("(max-width: 700px)");

export default function ({ parentElement, data, setStateValue }) {
  const slider = parentElement.querySelector("input");
  const output = parentElement.querySelector("output");
  const hide = parentElement.querySelector(".hide");
  const hold = parentElement.querySelector(".hold");
  const dataset = page.dataset;

  const show = (held = false) => {
    const hidden = dataset.mapHidden === "true";
    const opacity = dataset.mapOpacity ?? "60";
    page.style.setProperty("--map-opacity", String(Number(opacity) / 100));
    page.style.setProperty("--map-shown", hidden || held ? "0" : "1");
    slider.value = opacity;
    output.textContent = `${opacity} %`;
    hide.setAttribute("aria-pressed", String(hidden));
  };

  slider.oninput = () => {
    dataset.mapOpacity = slider.value;
    show();
  };
  hide.onclick = () => {
    dataset.mapHidden = String(dataset.mapHidden !== "true");
    show();
  };
  const isPress = (event) => event.key === " " || event.key === "Enter";
  hold.onpointerdown = () => show(true);
  hold.onkeydown = (event) => isPress(event) && show(true);
  hold.onpointerup = hold.onpointerleave = hold.onpointercancel = hold.onkeyup = hold.onblur = () => show();

  const report = () => {
    if (NARROW.matches !== Boolean(data?.narrow)) setStateValue("narrow", NARROW.matches);
  };
  NARROW.onchange = report;
  report();
  show();
  return () => {
    NARROW.onchange = null;
    show();
  };
}
