// Opacity lives in the document's style: it acts at once, outlives every redraw, and stays when pages are switched.
const page = document.documentElement;
const FIGURE = ".st-key-evidence .js-plotly-plot";
const SETTLED_MS = 300; // a turn of the wheel is many events
let watch; // looks for a figure drawn anew; one figure, one watch

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

  clearInterval(watch);
  watch = setInterval(() => {
    const figure = document.querySelector(FIGURE);
    if (!figure?.on || figure.dataset.watched === String(data.case)) return;
    figure.dataset.watched = data.case;
    figure.on("plotly_relayout", () => {
      clearTimeout(figure.zoomSettled);
      figure.zoomSettled = setTimeout(() => {
        const { xaxis, yaxis } = figure._fullLayout;
        setStateValue("zoom", { case: data.case, x: [...xaxis.range], y: [...yaxis.range] });
      }, SETTLED_MS);
    });
  }, 250);

  show();
  return () => {
    clearInterval(watch);
    show();
  };
}
